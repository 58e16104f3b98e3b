/*
 * cuda_run.c
 *	  Starting and finishing plans: copies in, the plan as a CUDA graph, copies
 *	  out.
 *
 * R1 A slot belongs to a start until its finish; the device lists the open
 *    ones.
 * R2 After an error, what is queued still runs to its end before its memory is
 *    used again: release waits for the streams.
 */
#include "nn/cuda/cuda.h"

#include <string.h>

static size_t
cuda_port_bytes(const CudaSlot *slot, int port, int images)
{
	return (size_t) images * slot->plan->ports[port].image *
		   (slot->forms >> port & 1 ? 1 : sizeof(float));
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
			slot->values[p->ports[i].value] = kernel_map(
				slot->device + p->ports[i].offset, slot->forms >> i & 1 ? KERNEL_U8 : KERNEL_F32,
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
	NnStatus status =
		cuda_check(error, cudaStreamBeginCapture(device->compute, cudaStreamCaptureModeThreadLocal),
				   "begin a capture");
	cudaError_t result;

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
	status = slot->graph ? cuda_check(error, cudaGraphLaunch(slot->graph, device->compute),
									  "run a captured plan")
						 : cuda_launch_steps(device, slot, error);
	if (status == NN_OK && slot->runs < 2)
		slot->runs++;
	return status;
}

/* ---- Start and finish ---------------------------------------------------- */

/* Copies inputs to pinned memory and on, in order; notes the outputs. */
static NnStatus
copy_inputs(CudaDevice *device, CudaSlot *slot, const NnBinding *bindings, int nbindings,
			NnError *error)
{
	const CudaPlan *p = slot->plan;
	NnStatus status = NN_OK;

	slot->noutputs = 0;
	for (int i = 0; status == NN_OK && i < nbindings; i++)
	{
		int port = find_port(p, bindings[i].value);
		int n = cuda_shape(p->plan, bindings[i].value).n;
		NnBinding b = bindings[i];

		b.n = b.n > 0 && b.n < n ? b.n : n;
		b.value = port;
		if (!p->ports[port].input)
		{
			slot->outputs[slot->noutputs++] = b;
			continue;
		}
		memcpy(slot->pinned + p->ports[port].offset, b.bytes ? (void *) b.bytes : (void *) b.data,
			   cuda_port_bytes(slot, port, b.n));
		status = cuda_check(error,
							cudaMemcpyAsync(slot->device + p->ports[port].offset,
											slot->pinned + p->ports[port].offset,
											cuda_port_bytes(slot, port, b.n),
											cudaMemcpyHostToDevice, device->in),
							"take an input");
	}
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
	for (int i = 0; status == NN_OK && i < slot->noutputs; i++)
	{
		const NnBinding *b = &slot->outputs[i];
		size_t offset = slot->plan->ports[b->value].offset;

		status = cuda_check(error,
							cudaMemcpyAsync(slot->pinned + offset, slot->device + offset,
											cuda_port_bytes(slot, b->value, b->n),
											cudaMemcpyDeviceToHost, device->out),
							"give an output");
	}
	return status == NN_OK
			   ? cuda_check(error, cudaEventRecord(slot->left, device->out), "mark the outputs")
			   : status;
}

/* Which ports the bindings say are of bytes, or an error. */
static NnStatus
forms_of(const CudaPlan *p, const NnBinding *bindings, int nbindings, unsigned *forms,
		 NnError *error)
{
	*forms = 0;
	for (int i = 0; i < nbindings; i++)
	{
		int port = find_port(p, bindings[i].value);

		if (port < 0 || nbindings > CUDA_MAX_PORTS)
			return nn_fail(error, NN_EINVAL, "value \"%s\" is neither an input nor an output",
						   p->plan->graph->values[bindings[i].value].name);
		*forms |= bindings[i].bytes ? 1u << port : 0;
	}
	return NN_OK;
}

NnStatus
cuda_start(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings,
		   int nbindings, NnError *error)
{
	CudaDevice *device = base->state;
	CudaPlan *p = plan->device_state;
	CudaSlot *slot = &p->slots[p->next];
	unsigned forms;
	NnStatus status = cuda_use(device, error);

	if (status == NN_OK)
		status = forms_of(p, bindings, nbindings, &forms, error);
	if (status == NN_OK && device->nopen == NN_STARTS)
		status = nn_fail(error, NN_EINVAL, "more than %d runs started", NN_STARTS);
	if (status != NN_OK)
		return status;
	take_form(slot, forms);
	status = copy_inputs(device, slot, bindings, nbindings, error);
	if (status == NN_OK)
		status = compute(device, slot, error);
	if (status == NN_OK)
		status = copy_outputs(device, slot, error);
	if (status != NN_OK)
		return status;
	p->next = (p->next + 1) % NN_STARTS;
	device->open[device->nopen++] = slot;
	return NN_OK;
}

/* Waits until the GPU has come so far, of which the watchdog then hears. */
static NnStatus
await(const CudaDevice *device, cudaEvent_t event, NnError *error)
{
	NnStatus status = cuda_check(error, cudaEventSynchronize(event), "finish a run");

	nn_progress(&device->base);
	return status;
}

NnStatus
cuda_finish(NnDevice *base, NnError *error)
{
	CudaDevice *device = base->state;
	CudaSlot *slot = device->open[0];
	NnStatus status = cuda_use(device, error);

	if (device->nopen == 0)
		return nn_fail(error, NN_EINVAL, "no run is started");
	for (int i = 1; i < device->nopen; i++)
		device->open[i - 1] = device->open[i];
	device->nopen--;
	if (status == NN_OK)
		status = await(device, slot->arrived, error);
	if (status == NN_OK)
		status = await(device, slot->computed, error);
	if (status == NN_OK)
		status = await(device, slot->left, error);
	for (int i = 0; status == NN_OK && i < slot->noutputs; i++)
	{
		const NnBinding *b = &slot->outputs[i];

		memcpy(b->bytes ? (void *) b->bytes : (void *) b->data,
			   slot->pinned + slot->plan->ports[b->value].offset,
			   cuda_port_bytes(slot, b->value, b->n));
	}
	return status;
}

NnStatus
cuda_run(NnDevice *base, NnPlan *plan, const void *packed, const NnBinding *bindings, int nbindings,
		 NnError *error)
{
	NnStatus status = cuda_start(base, plan, packed, bindings, nbindings, error);

	return status == NN_OK ? cuda_finish(base, error) : status;
}
