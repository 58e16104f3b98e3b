/*
 * failing_malloc.h
 *	  Makes the n-th allocation of the program fail, and all later ones too
 *	  unless one failure is asked for, and counts what is not freed, and the
 *	  bytes held at most.
 *
 * Defines malloc and its family for the whole program, libraries included, on
 * top of glibc's own entry points. A sanitizer has its own allocator, which
 * this would displace: under one, FAILING_MALLOC is 0 and a test has nothing to
 * prove.
 */
#ifndef BICYCLE_FAILING_MALLOC_H
#define BICYCLE_FAILING_MALLOC_H

#include <errno.h>
#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define FAILING_MALLOC 0
#else
#define FAILING_MALLOC 1

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

/*
 * so that libraries call them too, though the program is built with hidden
 * symbols
 */
#define EXPORTED __attribute__((visibility("default")))

static long allocations_until_failure = -1; /* so many succeed, then none does; -1: all do */
static int allocations_fail_once;           /* those after the one that fails succeed again */
static long allocations_alive;
static long allocations_before; /* of allocations_alive, when failures began */
/* volatile: compilers hold that malloc changes no variable */
static volatile long allocated_bytes, allocated_peak;

static int
allocation_fails(void)
{
	if (allocations_until_failure > 0)
		allocations_until_failure--;
	else if (allocations_until_failure == 0)
	{
		if (allocations_fail_once)
			allocations_until_failure = -1;
		errno = ENOMEM; /* which glibc itself relies on */
		return 1;
	}
	return 0;
}

static void
count_bytes(void *block, long sign)
{
	allocated_bytes += sign * (long) malloc_usable_size(block);
	if (allocated_bytes > allocated_peak)
		allocated_peak = allocated_bytes;
}

static void *
count_allocation(void *block)
{
	if (block != NULL)
		allocations_alive++;
	count_bytes(block, 1);
	return block;
}

/* From here on n allocations succeed. */
static inline void
allocations_begin(long n)
{
	allocations_before = allocations_alive;
	allocations_until_failure = n;
}

/*
 * From here on all succeed again. Returns how many more blocks there are than
 * at the beginning.
 */
static inline long
allocations_end(void)
{
	allocations_until_failure = -1;
	return allocations_alive - allocations_before;
}

EXPORTED void *
malloc(size_t size)
{
	return allocation_fails() ? NULL : count_allocation(__libc_malloc(size));
}

EXPORTED void *
calloc(size_t n, size_t size)
{
	return allocation_fails() ? NULL : count_allocation(__libc_calloc(n, size));
}

EXPORTED void *
aligned_alloc(size_t alignment, size_t size)
{
	return allocation_fails() ? NULL : count_allocation(__libc_memalign(alignment, size));
}

/*
 * Counted, but it never fails: only libgomp calls it, which ends the program
 * then.
 */
EXPORTED void *
memalign(size_t alignment, size_t size)
{
	return count_allocation(__libc_memalign(alignment, size));
}

EXPORTED void *
realloc(void *block, size_t size)
{
	void *moved;

	if (allocation_fails())
		return NULL;
	if (block == NULL)
		return count_allocation(__libc_malloc(size));
	count_bytes(block, -1);
	moved = __libc_realloc(block, size);
	count_bytes(moved != NULL ? moved : block, 1);
	return moved;
}

EXPORTED void
free(void *block)
{
	if (block != NULL)
		allocations_alive--;
	count_bytes(block, -1);
	__libc_free(block);
}
#endif

#endif /* BICYCLE_FAILING_MALLOC_H */
