/*
 * list.h
 *	  Doubly linked lists whose links lie inside their members. A list is a head
 *	  node; a node that is in no list points to itself, or has never been in one
 *	  and is all zeros.
 *
 * Every list of the engine belongs to the I/O thread unless the structure it
 * lies in says otherwise.
 */
#ifndef BICYCLE_LIST_H
#define BICYCLE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/invariant.h"

typedef struct List
{
	struct List *prev;
	struct List *next;
} List;

#define list_member(type, field, node) ((type *) ((char *) (node) -offsetof(type, field)))

/* The current member may be removed, but the next one must stay in a list. */
#define list_foreach(node, head)                                               \
	for (List *node = (head)->next, *node##_next = node->next; node != (head); \
		 node = list_step(node##_next, head), node##_next = node->next)

static inline List *
list_step(List *next, const List *head)
{
	INVARIANT(next == head || next->next != next);
	return next;
}

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

/* The node is in no list; it may be all zeros. */
static inline void
list_insert_before(List *where, List *node)
{
	INVARIANT(node->next == node || node->next == NULL);
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

/* Harmless for a node that points to itself, not for one of zeros. */
static inline void
list_remove(List *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

#endif /* BICYCLE_LIST_H */
