/*
 * progress.h
 *	  For tests that watch work which takes long: how often it has told of
 *	  progress since the test set that to 0.
 */
#ifndef BICYCLE_PROGRESS_H
#define BICYCLE_PROGRESS_H

static int progress;

static void
on_progress(void)
{
	progress++;
}

#endif /* BICYCLE_PROGRESS_H */
