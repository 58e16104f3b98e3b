/*
 * evaluation.c
 *	  What is counted while a model is measured: memory, and pairs that cannot
 *	  be used.
 */
#include "pg/evaluate.h"

#include "pg/bad_images.h"

bool
evaluation_wants(const Evaluation *e, unsigned needs)
{
	for (int i = 0; i < METRICS; i++)
		if (e->options.wants[i] && (metric_kinds[i].needs & needs) != 0)
			return true;
	return false;
}

void
evaluation_hold(Evaluation *e, Size *count, Size bytes)
{
	*count += bytes;
	if (e->held + e->kept <= e->limit)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("evaluation needs too much memory"),
			 errdetail("Images and features of more than %zu bytes would be held.", e->limit),
			 errhint("Raise maintenance_work_mem, or ask for fewer samples or inputs.")));
}

void
evaluation_skip(Evaluation *e, const char *place, const char *message, const char *detail)
{
	e->nskipped++;
	if (e->nreasons++ < BAD_REASONS)
		appendStringInfo(&e->reasons, "%s%s: %s%s%s", e->reasons.len > 0 ? "\n" : "", place,
						 message, detail != NULL ? ": " : ".", detail != NULL ? detail : "");
}
