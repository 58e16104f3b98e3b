/*
 * pass.c
 *	  Running a model: a pass over images, cut into parts for which it has
 *	  plans.
 *
 * R1 A device that works beside us has at most NN_STARTS parts, of whatever
 *    passes. Parts of a pass are begun one after the other, and those of the
 *    next pass behind them. They end in that order.
 * R2 Plans with an open part stay where they are.
 * R3 After an error nothing more of the pass is begun, and what was is waited
 *    for before the pass is over.
 * R4 A pass over pairs is one over those of their images that are new, and what
 *    pairs.c does before and after it.
 *
 * Owner's thread.
 */
#include "nn/model_private.h"

#include "common/invariant.h"

_Static_assert(sizeof(((NnPass *) NULL)->parts) == NN_STARTS * sizeof(NnPassPart), "parts");

/* Elements of an image that is read, and of a result. */
static size_t
pass_in(const NnPass *pass)
{
	return model_reads(pass->model, pass->network, pass->extent);
}

static size_t
pass_out(const NnPass *pass, int i)
{
	return model_writes(pass->model, pass->network, pass->extent, i);
}

static void *
packed_of_pass(const NnPass *pass)
{
	return pass->model->nets[model_place(pass->network)].packed;
}

static bool
reads_bytes(const NnPass *pass)
{
	return pass->floats == NULL;
}

static bool
writes_bytes(const NnPass *pass)
{
	return pass->network == NN_NET_G && pass->out[0] == NULL;
}

static const uint8_t *
image_of_pass(const NnPass *pass, int i)
{
	return pass->images ? pass->images[i] : pass->bytes + i * pass_in(pass);
}

static uint8_t *
result_of_pass(const NnPass *pass, int i)
{
	return pass->results ? pass->results[i] : pass->byte_out + i * pass_out(pass, 0);
}

/*
 * What the next `count` images of the pass read and write. With a device that
 * takes no bytes, floats pass through the bucket's arrays where the pass has
 * bytes.
 */
static int
bind_images(const NnPass *pass, const Bucket *b, int count, NnBinding *bindings)
{
	bool bytes = pass->model->device->takes_bytes;
	int begun = pass->begun, n = 0;

	/* the bindings of inputs are only read */
	bindings[n] = (NnBinding){ .value = b->image, .n = count };
	if (!reads_bytes(pass))
		bindings[n].data = (float *) pass->floats + begun * pass_in(pass);
	else if (!bytes)
		bindings[n].data = b->in;
	else if (pass->images)
		bindings[n].each = (uint8_t *const *) pass->images + begun;
	else
		bindings[n].bytes = (uint8_t *) pass->bytes + begun * pass_in(pass);
	n++;
	if (b->z >= 0)
		bindings[n++] =
			(NnBinding){ .value = b->z,
						 .data = (float *) pass->z + (size_t) begun * pass->model->config.nz,
						 .n = count };
	for (int i = 0; i < 2; i++)
	{
		if (b->out[i] < 0)
			continue;
		bindings[n] = (NnBinding){ .value = b->out[i], .n = count };
		if (!writes_bytes(pass))
			bindings[n].data = pass->out[i] + begun * pass_out(pass, i);
		else if (!bytes)
			bindings[n].data = b->result;
		else if (pass->results)
			bindings[n].each = pass->results + begun;
		else
			bindings[n].bytes = pass->byte_out + begun * pass_out(pass, 0);
		n++;
	}
	return n;
}

/* ---- Bytes and floats ---------------------------------------------------- */

#define STRETCH 5120 /* of an image; a thread turns so many numbers in 3 microseconds */

static ptrdiff_t
image_stretches(size_t numbers)
{
	return (ptrdiff_t) ((numbers + STRETCH - 1) / STRETCH);
}

/* Where the k-th of all begins in its image of so many numbers. */
static size_t
image_stretch(size_t numbers, ptrdiff_t k, size_t *length)
{
	size_t at = (size_t) (k % image_stretches(numbers)) * STRETCH;

	*length = numbers - at < STRETCH ? numbers - at : STRETCH;
	return at;
}

static void
read_stretch(const NnPass *pass, const Bucket *b, ptrdiff_t k)
{
	size_t numbers = pass_in(pass), length, at = image_stretch(numbers, k, &length);
	int i = (int) (k / image_stretches(numbers));

	nn_normalise(image_of_pass(pass, pass->begun + i) + at, length, b->in + i * numbers + at);
}

static void
write_stretch(const NnPass *pass, const Bucket *b, ptrdiff_t k)
{
	size_t numbers = pass_out(pass, 0), length, at = image_stretch(numbers, k, &length);
	int i = (int) (k / image_stretches(numbers));

	nn_quantise(b->result + i * numbers + at, length, result_of_pass(pass, pass->begun + i) + at);
}

/*
 * By the team that runs the plan. One of another size, a single thread too,
 * would take memory, and libgomp ends the program where there is none.
 */
static void
turn_images(const NnPass *pass, const Bucket *b, ptrdiff_t n,
			void (*turn)(const NnPass *pass, const Bucket *b, ptrdiff_t k))
{
	int threads = pass->model->device->threads;

	for (ptrdiff_t k = 0; threads == 1 && k < n; k++)
		turn(pass, b, k);
	if (threads == 1)
		return;
#pragma omp parallel for schedule(static) num_threads(threads)
	for (ptrdiff_t k = 0; k < n; k++)
		turn(pass, b, k);
}

/* ---- Parts --------------------------------------------------------------- */

/* The next images, on a device that does one thing at a time. */
static NnStatus
run_part(NnPass *pass, Bucket *b, int count)
{
	NnModel *m = pass->model;
	NnBinding bindings[4];
	int n = bind_images(pass, b, count, bindings);
	NnStatus status;

	if (b->in && reads_bytes(pass))
		turn_images(pass, b, count * image_stretches(pass_in(pass)), read_stretch);
	status = m->device->run(m->device, &b->plan, packed_of_pass(pass), bindings, n, &pass->error);
	if (status != NN_OK)
		return status;
	if (b->result && writes_bytes(pass))
		turn_images(pass, b, count * image_stretches(pass_out(pass, 0)), write_stretch);
	pass->done += count;
	return NN_OK;
}

/* On one that works beside us. */
static NnStatus
start_part(NnPass *pass, Bucket *b, Plans *plans, int count)
{
	NnModel *m = pass->model;
	NnBinding bindings[4];
	int n = bind_images(pass, b, count, bindings);
	NnStatus status = m->device->async->start(m->device, &b->plan, packed_of_pass(pass), bindings,
											  n, &pass->error);

	if (status != NN_OK)
		return status;
	if (pass->nparts == 0)
		pass->oldest = m->device->started;
	m->device->started++;
	plans->open++;
	pass->parts[pass->nparts++] = (NnPassPart){ count, plans };
	return NN_OK;
}

static NnStatus
begin_part(NnPass *pass)
{
	NnModel *m = pass->model;
	int count = pass->n - pass->begun, most;
	Plans *plans;
	Bucket *b;
	NnStatus status = model_take_plans(m, pass->network, pass->extent, &plans, &pass->error);

	nn_progress(m->device);
	if (status == NN_OK)
		status = model_next_bucket(m, pass->network, plans, count, &b, &pass->error);
	if (status != NN_OK)
		return status;
	most = b->graph.values[b->image].shape.n;
	count = count < most ? count : most;
	status = m->device->async ? start_part(pass, b, plans, count) : run_part(pass, b, count);
	pass->begun += status == NN_OK ? count : 0;
	return status;
}

/*
 * The oldest that is started. What has ended well is done, also if a later part
 * could not be begun; if it has not, that is the error.
 */
static void
end_part(NnPass *pass)
{
	NnDevice *device = pass->model->device;
	NnPassPart part = pass->parts[0];
	NnError error;
	NnStatus status = device->async->finish(device, &error);

	for (int i = 1; i < pass->nparts; i++)
		pass->parts[i - 1] = pass->parts[i];
	pass->nparts--;
	pass->oldest++;
	device->ended++;
	part.plans->open--;
	if (status == NN_OK)
		pass->done += pass->broken ? 0 : part.n;
	else if (!pass->broken)
	{
		pass->broken = true;
		pass->status = status;
		pass->error = error;
	}
}

/* Parts of it, one after the other. */
static bool
go_on(NnPass *pass, bool wait)
{
	NnDevice *device = pass->model->device;

	for (;;)
	{
		bool oldest;

		while (pass->status == NN_OK && pass->begun < pass->n &&
			   device->started - device->ended < NN_STARTS)
			pass->status = begin_part(pass);
		if (pass->nparts == 0 && (pass->status != NN_OK || pass->begun == pass->n))
			return true;
		oldest = pass->nparts > 0 && pass->oldest == device->ended;
		if (!oldest || (!wait && !device->async->ready(device)))
			return false;
		end_part(pass);
		wait = false;
	}
}

static void
check_network(NnPass *pass)
{
	if (pass->status != NN_OK || model_has(pass->model, pass->network))
		return;
	if (pass->network == NN_NET_E)
	{
		pass->status = nn_fail(&pass->error, NN_EINVAL, "model has no encoder");
		nn_hint(&pass->error, "Import the model together with its encoder.");
	}
	else
		pass->status = nn_fail(&pass->error, NN_EINVAL, "model has no network %s",
							   nn_network_name(pass->network));
}

bool
nn_pass_go(NnPass *pass, bool wait)
{
	check_network(pass);
	if (pass->network != NN_NET_L)
		return go_on(pass, wait);
	if (pass->status == NN_OK && !pass->pairs)
		pass->status = pairs_begin(pass);
	if (pass->status != NN_OK)
		return true;
	if (!go_on(&pass->pairs->images, wait))
		return false;
	pairs_end(pass);
	return true;
}

/* ---- Calls that wait ----------------------------------------------------- */

/* From the beginning to the end. */
static NnStatus
run_pass(NnPass *pass, NnError *error)
{
	INVARIANT(pass->model->device->started == pass->model->device->ended);
	while (!nn_pass_go(pass, true))
		;
	if (pass->status != NN_OK)
		*error = pass->error;
	return pass->status;
}

NnStatus
nn_model_translate(NnModel *model, int n, const uint8_t *images, const float *z, uint8_t *out,
				   NnError *error)
{
	return nn_model_translate_at(model, model_own_extent(model, NN_NET_G), n, images, z, out,
								 error);
}

NnStatus
nn_model_translate_at(NnModel *model, NnExtent extent, int n, const uint8_t *images, const float *z,
					  uint8_t *out, NnError *error)
{
	NnPass pass = { .model = model,
					.network = NN_NET_G,
					.extent = extent,
					.n = n,
					.bytes = images,
					.z = z,
					.byte_out = out };

	return run_pass(&pass, error);
}

NnStatus
nn_model_encode(NnModel *model, int n, const uint8_t *images, float *mu, float *logvar,
				NnError *error)
{
	NnPass pass = { .model = model,
					.network = NN_NET_E,
					.extent = model_own_extent(model, NN_NET_E),
					.n = n,
					.bytes = images,
					.out = { mu, logvar } };

	return run_pass(&pass, error);
}

NnStatus
nn_model_compare(NnModel *model, NnExtent extent, int n, const uint8_t *pairs, float *distances,
				 float *features, NnError *error)
{
	NnPass pass = { .model = model,
					.network = NN_NET_L,
					.extent = extent,
					.n = n,
					.bytes = pairs,
					.out = { distances, features } };

	return run_pass(&pass, error);
}

NnStatus
nn_model_translate_float(NnModel *model, int n, const float *images, const float *z, float *out,
						 NnError *error)
{
	return nn_model_translate_float_at(model, model_own_extent(model, NN_NET_G), n, images, z, out,
									   error);
}

NnStatus
nn_model_translate_float_at(NnModel *model, NnExtent extent, int n, const float *images,
							const float *z, float *out, NnError *error)
{
	NnPass pass = { .model = model,
					.network = NN_NET_G,
					.extent = extent,
					.n = n,
					.floats = images,
					.z = z,
					.out = { out } };

	return run_pass(&pass, error);
}

NnStatus
nn_model_encode_float(NnModel *model, int n, const float *images, float *mu, float *logvar,
					  NnError *error)
{
	NnPass pass = { .model = model,
					.network = NN_NET_E,
					.extent = model_own_extent(model, NN_NET_E),
					.n = n,
					.floats = images,
					.out = { mu, logvar } };

	return run_pass(&pass, error);
}
