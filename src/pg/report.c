/*
 * report.c
 *	  bicycle_report: a page that shows what a model does.
 *
 * R1 All runs as the caller: the query of the pairs under the caller's
 *    search_path, and read-only; the model, jobs and their losses under
 *    catalog_run's, with the caller's rights and row security.
 * R2 The model is looked up once, and all pictures are of that version. What
 *    the session says of images counts: bicycle.on_error, fit, exif and the
 *    format of answers, of which jpeg makes a smaller page.
 * R3 The page is built in the memory of the call, where it may have 1 GB. Its
 *    pictures are all there before it is. So they are counted as they come, and
 *    what cannot become a page ends before the rest of it is made.
 */
#include "pg/report.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "nn/nn.h"
#include "pg/catalog_run.h"
#include "pg/image_call.h"
#include "pg/jobs.h"
#include "pg/latent.h"
#include "pg/pairs_query.h"
#include "pg/report_html.h"
#include "pg/translate.h"

PG_FUNCTION_INFO_V1(bicycle_report);

/* of latent.c and train.c */
extern PGDLLEXPORT Datum bicycle_interpolate(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum bicycle_loss_plot(PG_FUNCTION_ARGS);

#define SWEEP_MOST 2.0 /* how far a number of z goes from 0, in standard deviations */
#define FAULT_PAGE 5   /* of bicycle.debug_fault: a page may have FAULT_PAGE_BYTES */
#define FAULT_PAGE_BYTES (1024 * 1024)

typedef struct Pair
{
	const char *name;
	bytea *input, *truth; /* NULL: null, or cannot be used */
	bytea *encoded;       /* NULL: there is none */
	bytea **samples;      /* likewise each */
} Pair;

typedef struct Report
{
	ReportOptions options;
	MemoryContext memory; /* of the call */
	const char *query;
	Model *model;
	Html page; /* its sections */
	Html nav;  /* and what leads to them */
	Pair *pairs;
	int npairs;
	float **codes; /* of the samples */
	Size bytes;    /* of the pictures that have come */
	int64 job;     /* 0: none that the caller may see */
	char *date;    /* of today */
} Report;

static void
begin_section(Report *r, const char *id, const char *heading)
{
	html_section(&r->page, id, heading);
	html_add(&r->nav, "<li><a href=\"#");
	html_text(&r->nav, id);
	html_add(&r->nav, "\">");
	html_text(&r->nav, heading);
	html_add(&r->nav, "</a></li>\n");
}

/* ---- Pictures ------------------------------------------------------------ */

/* The picture will be in the page, where three bytes take four characters. */
static void
count_picture(Report *r, const bytea *image)
{
	Size room =
		bicycle_debug && bicycle_debug_fault == FAULT_PAGE ? FAULT_PAGE_BYTES : MaxAllocSize;

	r->bytes += VARSIZE_ANY_EXHDR(image);
	if (r->bytes > room / 4 * 3)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("report is too large"),
				 errdetail("Its pictures have more than %zu bytes, for which a page has no room.",
						   room / 4 * 3),
				 errhint("Show fewer rows or samples, or set bicycle.output_format to jpeg.")));
}

/* What is asked of the model: an answer to an image, or its code. */
typedef struct Picture
{
	const char *pair; /* for errors */
	bytea *image;
	const float *z; /* NULL: its code is wanted */
	Call *call;
	bytea **answer; /* to be set; or */
	const float **code;
} Picture;

typedef struct Pictures
{
	Picture *at;
	int n, room;
	int now; /* that an error is about */
} Pictures;

static void
picture_context(void *arg)
{
	const Pictures *p = arg;

	errcontext("pair %s of a report", p->at[p->now].pair);
}

static Picture *
pictures_add(Pictures *p, const Pair *pair, bytea *image)
{
	if (p->n == p->room)
	{
		p->room = Max(64, 2 * p->room);
		p->at = p->at == NULL ? palloc(p->room * sizeof(Picture))
							  : repalloc(p->at, p->room * sizeof(Picture));
	}
	p->at[p->n] = (Picture){ .pair = pair->name, .image = image };
	return &p->at[p->n++];
}

static void
want_answer(Pictures *p, const Pair *pair, const float *z, bytea **answer)
{
	Picture *picture;

	*answer = NULL;
	if (pair->input == NULL)
		return;
	picture = pictures_add(p, pair, pair->input);
	picture->z = z;
	picture->answer = answer;
}

static void
picture_open(const Model *model, Picture *picture)
{
	picture->call = picture->z != NULL ? translate_submit(model, false, picture->z, picture->image)
									   : encode_submit(model, false, picture->image);
}

static void
picture_take(Report *r, Picture *picture)
{
	if (image_answered(picture->call, false, NULL, psprintf("pair %s of a report", picture->pair)))
	{
		if (picture->z == NULL)
			*picture->code = encode_wait(picture->call, r->model);
		else
		{
			*picture->answer = image_wait(picture->call);
			count_picture(r, *picture->answer);
		}
	}
	call_free(picture->call);
	picture->call = NULL;
}

/*
 * All of them, as many at a time as keep the engine busy, and as bytes that are
 * under way allow.
 */
static void
pictures_make(Report *r, Pictures *p)
{
	int window = image_window();
	int opened = 0;
	Size bytes = 0;
	ErrorContextCallback context = { .callback = picture_context,
									 .arg = p,
									 .previous = error_context_stack };

	error_context_stack = &context;
	for (int i = 0; i < p->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (; opened < p->n && opened < i + window && (bytes < IMAGE_WINDOW_BYTES || opened == i);
			 opened++)
		{
			p->now = opened;
			picture_open(r->model, &p->at[opened]);
			bytes += VARSIZE_ANY(p->at[opened].image);
		}
		p->now = i;
		bytes -= VARSIZE_ANY(p->at[i].image);
		picture_take(r, &p->at[i]);
	}
	error_context_stack = context.previous;
}

/* ---- Pairs --------------------------------------------------------------- */

static bytea *
pair_column(Report *r, HeapTuple row, TupleDesc desc, int column, const char *name)
{
	bool isnull;
	Datum value = SPI_getbinval(row, desc, column, &isnull);
	bytea *image;

	if (isnull || !image_accept(value, false, NULL, psprintf("pair %s of a report", name), &image))
		return NULL;
	count_picture(r, image);
	return DatumGetByteaPCopy(PointerGetDatum(image));
}

/* The first rows of the query, which nothing in it may write from. */
static void
read_shown(Report *r)
{
	PairsCursor cursor = pairs_open(r->query, 2);

	r->pairs = palloc0(r->options.rows * sizeof(Pair));
	while (r->npairs < r->options.rows)
	{
		Pair *pair = &r->pairs[r->npairs];
		HeapTuple row;
		TupleDesc desc;

		SPI_cursor_fetch(cursor.portal, true, 1);
		if (SPI_processed == 0)
			break;
		row = SPI_tuptable->vals[0];
		desc = SPI_tuptable->tupdesc;
		if (desc->natts > 2)
			pair->name = SPI_getvalue(row, desc, 3);
		r->npairs++;
		if (pair->name == NULL)
			pair->name = psprintf("%d", r->npairs);
		pair->input = pair_column(r, row, desc, 1, pair->name);
		pair->truth = pair_column(r, row, desc, 2, pair->name);
		pair->samples = palloc0(r->options.samples * sizeof(bytea *));
		SPI_freetuptable(SPI_tuptable);
	}
	pairs_close(cursor);
	if (r->npairs == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("there are no pairs to make a report of")));
}

/* As bicycle_sample draws them, and the same ones for each pair. */
static void
draw_codes(Report *r)
{
	int nz = r->model->nz;

	r->codes = palloc(r->options.samples * sizeof(float *));
	for (int k = 1; k <= r->options.samples; k++)
	{
		r->codes[k - 1] = palloc0(Max(nz, 1) * sizeof(float));
		nn_normal(sample_counter(r->options.seed, k), 0, nz, r->codes[k - 1]);
	}
}

static void
make_samples(Report *r)
{
	Pictures codes = { 0 }, answers = { 0 };
	const float **read = palloc0(r->npairs * sizeof(float *));

	for (int i = 0; i < r->npairs && r->model->has_encoder; i++)
		if (r->pairs[i].truth != NULL)
			pictures_add(&codes, &r->pairs[i], r->pairs[i].truth)->code = &read[i];
	pictures_make(r, &codes);
	for (int i = 0; i < r->npairs; i++)
	{
		Pair *pair = &r->pairs[i];

		if (read[i] != NULL)
			want_answer(&answers, pair, read[i], &pair->encoded);
		for (int k = 0; k < r->options.samples; k++)
			want_answer(&answers, pair, r->codes[k], &pair->samples[k]);
	}
	pictures_make(r, &answers);
}

static void
show_samples(Report *r)
{
	Html *page = &r->page;
	int n = 0;
	const char **heads = palloc((4 + r->options.samples) * sizeof(char *));

	heads[n++] = "pair";
	heads[n++] = "input";
	heads[n++] = "ground truth";
	if (r->model->has_encoder)
		heads[n++] = "encoded";
	for (int k = 1; k <= r->options.samples; k++)
		heads[n++] = r->model->nz == 0 ? "answer" : psprintf("random_sample%02d", k);
	begin_section(r, "samples", "Samples");
	html_add(page, "<p>");
	if (r->model->nz > 0)
		html_textf(page,
				   "Each column of samples is one latent code, the same in all rows: what "
				   "bicycle_sample draws with the seed " INT64_FORMAT ".%s",
				   r->options.seed,
				   r->model->has_encoder
					   ? " Encoded is the input in the style that the encoder reads from the "
						 "ground truth."
					   : "");
	else
		html_text(page, "The model takes no latent code, and gives one answer to each input.");
	html_add(page, "</p>\n");
	html_table(page, "samples", psprintf("Input, ground truth and answers of %d pairs", r->npairs));
	html_heads(page, heads, n);
	for (int i = 0; i < r->npairs; i++)
	{
		const Pair *pair = &r->pairs[i];
		int column = 1;

		html_row(page, pair->name);
		html_image_cell(page, pair->input, psprintf("%s of pair %s", heads[column++], pair->name));
		html_image_cell(page, pair->truth, psprintf("%s of pair %s", heads[column++], pair->name));
		if (r->model->has_encoder)
			html_image_cell(page, pair->encoded,
							psprintf("%s, pair %s", heads[column++], pair->name));
		for (int k = 0; k < r->options.samples; k++)
			html_image_cell(page, pair->samples[k],
							psprintf("%s of pair %s", heads[column++], pair->name));
		html_row_end(page);
	}
	html_table_end(page);
	html_section_end(page);
}

/* ---- Codes --------------------------------------------------------------- */

/* The pair whose input morph and sweep are of; NULL: there is none. */
static const Pair *
shown_pair(const Report *r)
{
	for (int i = 0; i < r->npairs; i++)
		if (r->pairs[i].input != NULL)
			return &r->pairs[i];
	return NULL;
}

static float *
code_between(const float *a, const float *b, int nz, double t)
{
	int n;
	Datum z = DirectFunctionCall3(bicycle_interpolate, PointerGetDatum(latent_array(a, nz)),
								  PointerGetDatum(latent_array(b, nz)), Float8GetDatum(t));

	return (float *) latent_values(DatumGetArrayTypeP(z), &n);
}

static void
show_morph(Report *r)
{
	const Pair *pair = shown_pair(r);
	int n = r->options.steps, nz = r->model->nz;
	bytea **answers = palloc0(Max(n, 1) * sizeof(bytea *));
	const char **heads = palloc((n + 1) * sizeof(char *));
	float *last = palloc(Max(nz, 1) * sizeof(float));
	Html *page = &r->page;
	Pictures p = { 0 };

	if (pair == NULL || n == 0 || nz == 0)
		return;
	nn_normal(sample_counter(r->options.seed, 2), 0, nz, last);
	heads[0] = "input";
	for (int i = 0; i < n; i++)
	{
		double t = n > 1 ? (double) i / (n - 1) : 0;

		heads[i + 1] = psprintf("t = %.2f", t);
		want_answer(&p, pair, code_between(r->codes[0], last, nz, t), &answers[i]);
	}
	pictures_make(r, &p);
	begin_section(r, "morph", "Morph");
	html_add(page, "<p>");
	html_textf(page,
			   "Pair %s, from the code of sample 1 to that of sample 2, as bicycle_interpolate "
			   "goes.",
			   pair->name);
	html_add(page, "</p>\n");
	html_table(page, "morph", psprintf("%d steps from one latent code to another", n));
	html_heads(page, heads, n + 1);
	html_row(page, pair->name);
	for (int i = 0; i < n; i++)
		html_image_cell(page, answers[i],
						psprintf("answer to pair %s at %s", pair->name, heads[i + 1]));
	html_row_end(page);
	html_table_end(page);
	html_section_end(page);
}

static double
sweep_value(int i, int n)
{
	return n > 1 ? SWEEP_MOST * (2.0 * i / (n - 1) - 1) : 0;
}

static void
show_sweep(Report *r)
{
	const Pair *pair = shown_pair(r);
	int n = r->options.sweep, nz = r->model->nz;
	bytea **answers = palloc0(Max(n * nz, 1) * sizeof(bytea *));
	const char **heads = palloc((n + 1) * sizeof(char *));
	Html *page = &r->page;
	Pictures p = { 0 };

	if (pair == NULL || n == 0 || nz == 0)
		return;
	for (int i = 0; i < n * nz; i++)
	{
		float *z = palloc0(nz * sizeof(float));

		z[i / n] = (float) sweep_value(i % n, n);
		want_answer(&p, pair, z, &answers[i]);
	}
	pictures_make(r, &p);
	heads[0] = "number";
	for (int i = 0; i < n; i++)
		heads[i + 1] = psprintf("%+.2f", sweep_value(i, n));
	begin_section(r, "sweep", "Sweep");
	html_add(page, "<p>");
	html_textf(page,
			   "Pair %s, each number of the latent code by itself from %.0f to %.0f standard "
			   "deviations; the others are 0.",
			   pair->name, -SWEEP_MOST, SWEEP_MOST);
	html_add(page, "</p>\n");
	html_table(page, "sweep", "What each number of the latent code does");
	html_heads(page, heads, n + 1);
	for (int row = 0; row < nz; row++)
	{
		html_row(page, psprintf("z[%d]", row + 1));
		for (int i = 0; i < n; i++)
			html_image_cell(page, answers[row * n + i],
							psprintf("answer with z[%d] = %s", row + 1, heads[i + 1]));
		html_row_end(page);
	}
	html_table_end(page);
	html_section_end(page);
}

/* ---- The model and its job ----------------------------------------------- */

/* The rows of the last statement, of two columns that are text, as a table. */
static void
show_facts(Html *page, const char *id, const char *caption)
{
	static const char *const heads[] = { "what", "value" };

	html_table(page, id, caption);
	html_heads(page, heads, 2);
	for (uint64 row = 0; row < SPI_processed; row++)
		html_fact(page, result_text(row, 1), result_text(row, 2));
	html_table_end(page);
	SPI_freetuptable(SPI_tuptable);
}

static void
show_model(Report *r)
{
	Params p = { 0 };

	param_add_version(&p, r->model->name, r->model->version);
	begin_section(r, "model", "Model card");
	(void) catalog_run(
		AS_CALLER_READ, "bicycle_models",
		"SELECT f.name, f.value FROM %s AS m, LATERAL (VALUES ('model', model), ('version',"
		" version::text || CASE WHEN is_current THEN ' (current)' ELSE '' END), ('method', method),"
		" ('iterations', CASE WHEN iterations > 0 THEN iterations::text ELSE 'imported or made"
		" afresh' END), ('created', to_char(created_at AT TIME ZONE 'UTC',"
		" 'YYYY-MM-DD HH24:MI:SS') || ' UTC'), ('by', created_by::text), ('content (SHA-256)',"
		" encode(hash, 'hex'))) AS f (name, value) WHERE m.model = $1 AND m.version = $2",
		SPI_OK_SELECT, &p);
	show_facts(&r->page, "card", "The version that is shown");
	(void) catalog_run(AS_CALLER_READ, "bicycle_models",
					   "SELECT o.key, o.value FROM %s AS m, LATERAL jsonb_each_text(m.config) AS o"
					   " WHERE m.model = $1 AND m.version = $2 ORDER BY o.key",
					   SPI_OK_SELECT, &p);
	html_details(&r->page, "Its networks");
	show_facts(&r->page, "config", "Configuration of the networks");
	html_details_end(&r->page);
	html_section_end(&r->page);
}

/* The job that was asked for; or the last one that has made the version. */
static void
find_report_job(Report *r)
{
	Params p = { 0 };

	param_add_version(&p, r->model->name, r->model->version);
	param_add_long(&p, r->options.job);
	if (catalog_run(AS_CALLER_READ, "bicycle_jobs",
					"SELECT job FROM %s WHERE CASE WHEN $3 > 0 THEN job = $3"
					" ELSE model = $1 AND version = $2 END ORDER BY job DESC LIMIT 1",
					SPI_OK_SELECT, &p) > 0)
		r->job = result_long(0, 1);
	else if (r->options.job > 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_OBJECT),
						errmsg("training job " INT64_FORMAT " does not exist", r->options.job),
						errhint("View bicycle_jobs lists the jobs that you may see.")));
}

static void
show_losses(Report *r, Params *p)
{
	static const char *const heads[] = { "loss", "iteration", "value" };
	Html *page = &r->page;

	html_figure(page,
				DatumGetByteaP(DirectFunctionCall3(bicycle_loss_plot, Int64GetDatum(r->job),
												   Int32GetDatum(960), Int32GetDatum(480))),
				"curves of the losses by iteration; the table below has their last values",
				"Losses by iteration");
	(void) catalog_run(AS_CALLER_READ, "bicycle_losses",
					   "SELECT DISTINCT ON (name) name, iteration, round(value::numeric, 4)"
					   " FROM %s WHERE job = $1 ORDER BY name, iteration DESC",
					   SPI_OK_SELECT, p);
	html_table(page, "losses", "Their last values");
	html_heads(page, heads, 3);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		html_row(page, result_text(row, 1));
		html_cell(page, result_text(row, 2));
		html_cell(page, result_text(row, 3));
		html_row_end(page);
	}
	html_table_end(page);
	SPI_freetuptable(SPI_tuptable);
}

/* The first and the last, and as many between them as are wanted. */
static void
show_previews(Report *r, Params *p)
{
	param_add_int(p, r->options.previews);
	(void) catalog_run(
		AS_CALLER_READ, "bicycle_previews",
		"SELECT iteration, image FROM (SELECT iteration, image, row_number() OVER"
		" (ORDER BY iteration DESC) - 1 AS place, count(*) OVER () AS n FROM %s WHERE job = $1) AS "
		"v"
		" WHERE n <= $2 OR place = 0 OR place * ($2 - 1) / greatest(n - 1, 1)"
		" <> (place - 1) * ($2 - 1) / greatest(n - 1, 1) ORDER BY iteration LIMIT $2",
		SPI_OK_SELECT, p);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		char *iteration = result_text(row, 1);

		html_figure(
			&r->page, DatumGetByteaPCopy(result_datum(row, 2)),
			psprintf("preview of iteration %s", iteration),
			psprintf("Preview of iteration %s: input, truth, reconstruction, samples", iteration));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
show_job(Report *r)
{
	Params p = { 0 }, options = { 0 };
	Job job;

	if (r->job == 0)
		return;
	param_add_long(&p, r->job);
	begin_section(r, "training", "Training");
	(void) catalog_run(
		AS_CALLER_READ, "bicycle_jobs",
		"SELECT f.name, f.value FROM %s AS j, LATERAL (VALUES ('job', job::text), ('owner',"
		" owner::text), ('state', state), ('iterations', concat_ws(' of ', iteration, iterations)),"
		" ('started', to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'),"
		" ('updated', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'),"
		" ('notes', notes), ('error', error)) AS f (name, value)"
		" WHERE j.job = $1 AND f.value IS NOT NULL",
		SPI_OK_SELECT, &p);
	show_facts(&r->page, "job", "The job");
	show_losses(r, &p);
	if (r->options.previews > 0)
		show_previews(r, &p);
	/* Who sees it in the view may know them. */
	if (job_read(r->job, &job, false))
	{
		param_add_text(&options, job.options);
		(void) catalog_run(AS_CALLER_READ, "bicycle_jobs",
						   "SELECT key, value FROM jsonb_each_text($1::jsonb) ORDER BY key",
						   SPI_OK_SELECT, &options);
		html_details(&r->page, "Its options");
		show_facts(&r->page, "options", "Options of the job");
		html_details_end(&r->page);
	}
	html_section_end(&r->page);
}

/* ---- Evaluation ---------------------------------------------------------- */

/* Of this version, and with the seed of the page if no other is given. */
static Datum
evaluation_options(const Report *r)
{
	Params p = { 0 };

	param_add_text(&p, r->options.evaluation);
	param_add_int(&p, r->model->version);
	param_add_long(&p, r->options.seed);
	(void) catalog_run(AS_CALLER_READ, "bicycle_models",
					   "SELECT jsonb_build_object('seed', $3) || $1::jsonb"
					   " || jsonb_build_object('version', $2)",
					   SPI_OK_SELECT, &p);
	return result_datum(0, 1);
}

/* A float8 with four digits; NULL if it is null. */
static char *
short_number(uint64 row, int column)
{
	bool isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? NULL : psprintf("%.4g", DatumGetFloat8(value));
}

/* As the caller would call it, who chose the path that the pairs come by. */
static void
show_evaluation(Report *r)
{
	static const char *const heads[] = { "metric", "value", "standard error", "n" };
	Html *page = &r->page;
	Params p = { 0 };
	const char *schema = quote_identifier(get_namespace_name(catalog_schema(false)));

	if (!r->options.evaluates)
		return;
	param_add_text(&p, r->model->name);
	param_add_text(&p, r->query);
	param_add(&p, JSONBOID, evaluation_options(r));
	if (SPI_execute_with_args(
			psprintf("SELECT metric, value, stderr, n FROM %s.bicycle_evaluate($1, $2, $3)",
					 schema),
			p.n, p.types, p.values, p.nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "evaluation failed");
	begin_section(r, "evaluation", "Evaluation");
	html_add(page, "<p>");
	html_textf(page, "By bicycle_evaluate, with the options %s.", r->options.evaluation);
	html_add(page, "</p>\n");
	html_table(page, "metrics", "Metrics of the version on the pairs");
	html_heads(page, heads, 4);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		html_row(page, result_text(row, 1));
		html_cell(page, short_number(row, 2));
		html_cell(page, short_number(row, 3));
		html_cell(page, result_text(row, 4));
		html_row_end(page);
	}
	html_table_end(page);
	html_section_end(page);
	SPI_freetuptable(SPI_tuptable);
}

/* ---- The page ------------------------------------------------------------ */

/* In UTC, as all times of a page. */
static char *
report_date(const Report *r)
{
	Params p = { 0 };

	(void) catalog_run(AS_CALLER_READ, "bicycle_models",
					   "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')", SPI_OK_SELECT, &p);
	return MemoryContextStrdup(r->memory, result_text(0, 1));
}

static char *
page_title(const Report *r)
{
	return r->options.title != NULL ? pstrdup(r->options.title)
									: psprintf("Model %s", r->model->name);
}

static void
show_page(const Report *r, Html *whole)
{
	html_begin(whole, page_title(r));
	html_add(whole, "<header>\n<h1>");
	html_text(whole, page_title(r));
	html_add(whole, "</h1>\n<p class=\"faint\">");
	html_textf(whole, "Model %s, version %d, shown on %s.", r->model->name, r->model->version,
			   r->date);
	html_add(whole, "</p>\n</header>\n<nav aria-label=\"Sections\">\n<ul>\n");
	appendBinaryStringInfo(whole, r->nav.data, r->nav.len);
	html_add(whole, "</ul>\n</nav>\n<main id=\"content\">\n");
	appendBinaryStringInfo(whole, r->page.data, r->page.len);
	html_add(whole, "</main>\n<footer>\n<p>");
	html_textf(whole, "Made by bicycle_report, bicycle %s. Pairs: ", BICYCLE_VERSION);
	html_add(whole, "<code>");
	html_text(whole, r->query);
	html_add(whole, "</code></p>\n</footer>\n");
	html_end(whole);
}

/*
 * bicycle_report(model text, pairs text, options jsonb DEFAULT '{}') -> text
 */
Datum
bicycle_report(PG_FUNCTION_ARGS)
{
	Report r = { .memory = CurrentMemoryContext };
	Html whole;

	if (PG_ARGISNULL(1))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("query of the pairs must not be null")));
	report_options(fcinfo, 2, &r.options);
	r.query = text_to_cstring(PG_GETARG_TEXT_PP(1));
	r.model = model_lookup(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
						   r.options.version > 0 ? &r.options.version : NULL);
	if (r.model->nz == 0)
		r.options.samples = 1;
	initStringInfo(&r.page);
	initStringInfo(&r.nav);
	initStringInfo(&whole);
	SPI_connect();
	r.date = report_date(&r);
	find_report_job(&r);
	read_shown(&r);
	draw_codes(&r);
	make_samples(&r);
	show_samples(&r);
	show_model(&r);
	show_job(&r);
	show_evaluation(&r);
	show_morph(&r);
	show_sweep(&r);
	SPI_finish();
	show_page(&r, &whole);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(whole.data, whole.len));
}
