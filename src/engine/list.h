/*
 * list.h
 *	  Doubly linked lists whose links lie inside their members. A list is a head
 *	  node; a node that is in no list points to itself.
 *
 * Every list of the engine belongs to the I/O thread unless the structure it
 * lies in says otherwise.
 */
#ifndef BICYCLE_LIST_H
#define BICYCLE_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct List
{
	struct List *prev;
	struct List *next;
} List;

#define list_member(type, field, node) ((type *) ((char *) (node) -offsetof(type, field)))

/* Walks a list; the current member may be removed, no other one. */
#define list_foreach(node, head)                                               \
	for (List *node = (head)->next, *node##_next = node->next; node != (head); \
		 node = node##_next, node##_next = node->next)

static inline void
list_init(List *list)
{
	list->prev = list->next = list;
}

static inline bool
list_empty(const List *list)
{
	return list->next == list;
}

static inline void
list_insert_before(List *where, List *node)
{
	node->prev = where->prev;
	node->next = where;
	where->prev->next = node;
	where->prev = node;
}

static inline void
list_append(List *list, List *node)
{
	list_insert_before(list, node);
}

static inline void
list_prepend(List *list, List *node)
{
	list_insert_before(list->next, node);
}

/* Harmless for a node that is in no list. */
static inline void
list_remove(List *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#endif /* BICYCLE_LIST_H */
