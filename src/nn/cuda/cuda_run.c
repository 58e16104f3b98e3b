/*
 * cuda_run.c
 *	  Starting and finishing plans: copies in, the plan as a CUDA graph, copies
 *	  out.
 *
 * R1 A slot belongs to a start until its finish; the device lists the open
 *    ones.
 * R2 After an error of a start or a finish, what is queued runs to its end
 *    before that is told: bindings and slot are the caller's again.
 * R3 What is bound need not lie in one piece, nor all of it in pinned memory:
 *    each run of images that does is one copy, and others are staged.
 */
#include "nn/cuda/cuda.h"

#include <string.h>

static size_t
cuda_image_bytes(const CudaSlot *slot, int port)
{
	return slot->plan->ports[port].image * (slot->forms >> port & 1 ? 1 : sizeof(float));
}

/* Where each value is: a port's memory, or the arena. */
static void
cuda_place_values(CudaSlot *slot)
{
	const CudaPlan *p = slot->plan;
	const NnPlan *plan = p->plan;

	for (int i = 0; i < plan->graph->nvalues; i++)
		slot->values[i] =
			kernel_map((char *) plan->arena + plan->offset[i] * kernel_type_size(p->type), p->type,
					   plan->pitch[i]);
	for (int i = 0; i < p->nports; i++)
		if (p->ports[i].direct)
			slot->values[p->ports[i].value] =
				kernel_map(slot->device + cuda_port_offset(slot, i),
						   slot->forms >> i & 1 ? KERNEL_U8 : KERNEL_F32,
						   cuda_shape(plan, p->ports[i].value).c);
}

/* The port of a value; -1 if it is none. */
static int
find_port(const CudaPlan *p, int value)
{
	for (int i = 0; i < p->nports; i++)
		if (p->ports[i].value == value)
			return i;
	return -1;
}

/* ---- Graphs -------------------------------------------------------------- */

/* In another form than before, what was captured does not fit any more. */
static void
take_form(CudaSlot *slot, unsigned forms)
{
	if (slot->placed && slot->forms == forms)
		return;
	if (slot->graph)
		(void) cudaGraphExecDestroy(slot->graph);
	slot->graph = NULL;
	slot->runs = 0;
	slot->forms = forms;
	slot->placed = true;
	cuda_place_values(slot);
}

static NnStatus
capture(CudaDevice *device, CudaSlot *slot, NnError *error)
{
	cudaGraph_t graph = NULL;
	cudaError_t result = cuda_fault(FAULT_CAPTURE);
	NnStatus status;

	if (result == cudaSuccess)
		result = cudaStreamBeginCapture(device->compute, cudaStreamCaptureModeThreadLocal);
	status = cuda_check(error, result, "begin a capture");
	if (status != NN_OK)
		return status;
	status = cuda_launch_steps(device, slot, error);
	/* a capture must be ended in any case */
	result = cudaStreamEndCapture(device->compute, &graph);
	if (status == NN_OK)
		status = cuda_check(error, result, "capture a plan");
	if (status == NN_OK)
		status = cuda_check(error, cudaGraphInstantiate(&slot->graph, graph, 0),
							"make a captured plan ready");
	if (status != NN_OK)
		slot->graph = NULL;
	if (graph)
		(void) cudaGraphDestroy(graph);
	return status;
}

static NnStatus
launch_graph(CudaDevice *device, const CudaSlot *slot, NnError *error)
{
	cudaError_t result = cuda_fault(FAULT_LAUNCH);

	if (result == cudaSuccess)
		result = cudaGraphLaunch(slot->graph, device->compute);
	return cuda_check(error, result, "run a captured plan");
}

/*
 * Queues the plan's kernels. Only a run whose launches all succeeded counts as
 * the first: a kernel that CUDA has still to load must not be launched in a
 * capture. If the plan cannot be captured it is launched kernel by kernel as
 * before, which is only slower.
 */
static NnStatus
compute(CudaDevice *device, CudaSlot *slot, NnError *error)
{
	NnError why;
	NnStatus status;

	if (slot->runs == 1 && !slot->graph && !slot->plan->plan->passing &&
		capture(device, slot, &why) != NN_OK)
	{
		(void) cudaGetLastError();
		if (device->tracer)
			device->tracer->uncaptured(slot, &why);
	}
	if (device->tracer && slot->runs == 1 && slot == slot->plan->slots)
		device->tracer->plan(device, slot);
	status =
		slot->graph ? launch_graph(device, slot, error) : cuda_launch_steps(device, slot, error);
	if (status == NN_OK && slot->runs < 2)
		slot->runs++;
	return status;
}

/* ---- Copies -------------------------------------------------------------- */

/* Images of a binding that are one copy. */
typedef struct CudaRun
{
	char *host;   /* where they are; or in the slot's staged memory */
	char *device; /* and on the GPU */
	size_t bytes;
	bool staged;
} CudaRun;

/* Where image i of a binding is. */
static char *
bound_image(const NnBinding *b, size_t bytes, int i)
{
	return b->each ? (char *) b->each[i]
				   : (b->bytes ? (char *) b->bytes : (char *) b->data) + i * bytes;
}

/*
 * The run that begins with image i; returns where the next begins. b->value is
 * the port.
 */
static int
next_run(CudaDevice *device, const CudaSlot *slot, const NnBinding *b, int i, CudaRun *run)
{
	size_t bytes = cuda_image_bytes(slot, b->value),
		   at = cuda_port_offset(slot, b->value) + i * bytes;
	int j = i + 1;

	*run = (CudaRun){ .host = bound_image(b, bytes, i), .device = slot->device + at };
	run->staged = !cuda_is_pinned(device, run->host, bytes);
	if (run->staged)
		while (j < b->n && !cuda_is_pinned(device, bound_image(b, bytes, j), bytes))
			j++;
	else
		while (j < b->n && bound_image(b, bytes, j) == run->host + (j - i) * bytes &&
			   cuda_is_pinned(device, run->host, (j + 1 - i) * bytes))
			j++;
	run->bytes = (j - i) * bytes;
	if (run->staged)
		run->host = slot->staged + at;
	return j;
}

/* Whether a binding has to be staged, in part or in whole. */
static bool
is_staged(CudaDevice *device, const CudaSlot *slot, const NnBinding *b)
{
	bool staged = false;

	for (int i = 0; i < b->n && !staged;)
	{
		CudaRun run;

		i = next_run(device, slot, b, i, &run);
		staged = run.staged;
	}
	return staged;
}

/* Images [i, j) between where they are bound and where they are staged. */
static void
stage_images(const CudaSlot *slot, const NnBinding *b, int i, int j, bool in)
{
	size_t bytes = cuda_image_bytes(slot, b->value);
	char *staged = slot->staged + cuda_port_offset(slot, b->value) + i * bytes;

	for (; i < j; i++, staged += bytes)
		memcpy(in ? staged : bound_image(b, bytes, i), in ? bound_image(b, bytes, i) : staged,
			   bytes);
}

static cudaError_t
copy_run(const CudaRun *run, bool in, cudaStream_t stream)
{
	cudaError_t result = cuda_fault(FAULT_COPY);

	if (result != cudaSuccess)
		return result;
	return cudaMemcpyAsync(in ? run->device : run->host, in ? run->host : run->device, run->bytes,
						   in ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, stream);
}

static NnStatus
copy_input(CudaDevice *device, CudaSlot *slot, const NnBinding *b, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0, j; status == NN_OK && i < b->n; i = j)
	{
		CudaRun run;

		j = next_run(device, slot, b, i, &run);
		if (run.staged)
			stage_images(slot, b, i, j, true);
		status = cuda_check(error, copy_run(&run, true, device->in), "take an input");
	}
	return status;
}

static NnStatus
copy_output(CudaDevice *device, CudaSlot *slot, const NnBinding *b, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < b->n;)
	{
		CudaRun run;

		i = next_run(device, slot, b, i, &run);
		status = cuda_check(error, copy_run(&run, false, device->out), "give an output");
	}
	return status;
}

/* What copy_output has brought, and only staged. */
static void
take_output(CudaDevice *device, const CudaSlot *slot, const NnBinding *b)
{
	for (int i = 0, j; i < b->n; i = j)
	{
		CudaRun run;

		j = next_run(device, slot, b, i, &run);
		if (run.staged)
			stage_images(slot, b, i, j, false);
	}
}

static NnStatus
copy_inputs(CudaDevice *device, CudaSlot *slot, NnError *error)
{
	NnStatus status = NN_OK;

	for (int i = 0; status == NN_OK && i < slot->nbound; i++)
		if (slot->plan->ports[slot->bound[i].value].input)
			status = copy_input(device, slot, &slot->bound[i], error);
	if (status == NN_OK)
		status = cuda_check(error, cudaEventRecord(slot->arrived, device->in), "mark the inputs");
	return status == NN_OK
			   ? cuda_check(error, cudaStreamWaitEvent(device->compute, slot->arrived, 0),
							"wait for the inputs")
			   : status;
}

static NnStatus
copy_outputs(CudaDevice *device, CudaSlot *slot, NnError *error)
{
	NnStatus status =
		cuda_check(error, cudaEventRecord(slot->computed, device->compute), "mark the results");

	if (status == NN_OK)
		status = cuda_check(error, cudaStreamWaitEvent(device->out, slot->computed, 0),
							"wait for the results");
	for (int i = 0; status == NN_OK && i < slot->nbound; i++)
		if (!slot->plan->ports[slot->bound[i].value].input)
			status = copy_output(device, slot, &slot->bound[i], error);
	return status == NN_OK
			   ? cuda_check(error, cudaEventRecord(slot->left, device->out), "mark the outputs")
			   : status;
}

/* ---- Start and finish ---------------------------------------------------- */

/* The slot's bindings and the form that they say, or an error. */
static NnStatus
bind_slot(CudaDevice *device, CudaSlot *slot, const NnBinding *bindings, int nbindings,
		  NnError *error)
{
	const CudaPlan *p = slot->plan;
	unsigned forms = 0;
	bool wide = slot->wide;
	NnStatus status;

	slot->nbound = 0;
	for (int i = 0; i < nbindings; i++)
	{
		int port = find_port(p, bindings[i].value);
		int n = cuda_shape(p->plan, bindings[i].value).n;
		NnBinding *b;

		if (port < 0 || slot->nbound == CUDA_MAX_PORTS)
			return nn_fail(error, NN_EINVAL, "value \"%s\" is neither an input nor an output",
						   p->plan->graph->values[bindings[i].value].name);
		b = &slot->bound[slot->nbound++];
		*b = bindings[i];
		b->n = b->n > 0 && b->n < n ? b->n : n;
		b->value = port;
		if (b->bytes || b->each)
			forms |= 1u << port;
		else
			wide |= p->ports[port].bytes;
	}
	if (wide && !slot->wide && (status = cuda_widen(device, slot, error)) != NN_OK)
		return status;
	take_form(slot, forms);
	for (int i = 0; i < slot->nbound; i++)
		if (is_staged(device, slot, &slot->bound[i]) &&
			(status = cuda_stage(slot,
								 p->ports[slot->bound[i].value].bytes ? p->port_bytes[slot->wide]
																	  : p->float_bytes,
								 error)) != NN_OK)
			return status;
	return NN_OK;
}

/*
 * Of an error once outputs are on their way, which may have the places of
 * inputs: memory or not, it cannot be done again.
 */
static NnStatus
beyond_inputs(NnStatus status, NnError *error)
{
	if (status != NN_ENOMEM)
		return status;
	nn_fail(error, NN_EDEVICE, "GPU could not give its results");
	nn_detail(error, "CUDA reported want of memory.");
	return NN_EDEVICE;
}

/* After an error: nothing of it goes on. */
static void
cuda_settle(CudaDevice *device)
{
	(void) cudaStreamSynchronize(device->in);
	(void) cudaStreamSynchronize(device->compute);
	(void) cudaStreamSynchronize(device->out);
	(void) cudaGetLastError();
}

NnStatus
cuda_start(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings,
		   int nbindings, NnError *error)
{
	CudaDevice *device = base->state;
	CudaPlan *p = plan->device_state;
	CudaSlot *slot = &p->slots[p->next];
	NnStatus status = cuda_use(device, error);

	if (status == NN_OK && device->nopen == NN_STARTS)
		status = nn_fail(error, NN_EINVAL, "more than %d runs started", NN_STARTS);
	if (status == NN_OK)
		status = bind_slot(device, slot, bindings, nbindings, error);
	if (status != NN_OK)
		return status;
	status = copy_inputs(device, slot, error);
	if (status == NN_OK)
		status = compute(device, slot, error);
	if (status == NN_OK)
		status = beyond_inputs(copy_outputs(device, slot, error), error);
	if (status != NN_OK)
	{
		cuda_settle(device);
		return status;
	}
	p->next = (p->next + 1) % NN_STARTS;
	device->open[device->nopen++] = slot;
	return NN_OK;
}

/* Errors are finish's to tell. */
bool
cuda_ready(NnDevice *base)
{
	CudaDevice *device = base->state;
	NnError ignored;
	cudaError_t result;

	if (device->nopen == 0 || cuda_use(device, &ignored) != NN_OK)
		return true;
	result = cudaEventQuery(device->open[0]->left);
	if (result == cudaErrorNotReady)
		(void) cudaGetLastError();
	return result != cudaErrorNotReady;
}

/* Waits until the GPU has come so far, of which the watchdog then hears. */
static NnStatus
await(const CudaDevice *device, cudaEvent_t event, NnError *error)
{
	NnStatus status = cuda_await(event, "finish a run", error);

	nn_progress(&device->base);
	return status;
}

NnStatus
cuda_finish(NnDevice *base, NnError *error)
{
	CudaDevice *device = base->state;
	CudaSlot *slot;
	NnStatus status;

	if (device->nopen == 0)
		return nn_fail(error, NN_EINVAL, "no run is started");
	slot = device->open[0];
	for (int i = 1; i < device->nopen; i++)
		device->open[i - 1] = device->open[i];
	device->nopen--;
	status = cuda_use(device, error);
	if (status == NN_OK)
		status = await(device, slot->arrived, error);
	if (status == NN_OK)
		status = await(device, slot->computed, error);
	if (status == NN_OK)
		status = await(device, slot->left, error);
	if (status != NN_OK)
		cuda_settle(device);
	status = beyond_inputs(status, error);
	for (int i = 0; status == NN_OK && i < slot->nbound; i++)
		if (!slot->plan->ports[slot->bound[i].value].input)
			take_output(device, slot, &slot->bound[i]);
	return status;
}

NnStatus
cuda_run(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings, int nbindings,
		 NnError *error)
{
	NnStatus status = cuda_start(base, plan, packed, bindings, nbindings, error);

	return status == NN_OK ? cuda_finish(base, error) : status;
}
