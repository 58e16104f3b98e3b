/*
 * import.c
 *	  IMPORT: model files to a configuration, a hash and tensors in canonical
 *	  order. CREATE: the same from fresh weights.
 *
 * The files are hostile; they are read on the loader thread. An ImportWork
 * belongs to its request and holds everything the answer is made of: frames in
 * the output queue point into it (and through it into the request's body, which
 * is kept for that long). CREATE knows what it takes only once its
 * configuration is read, so it goes to the loader twice, and waits for memory
 * between.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "nn/config.h"

typedef struct ImportWork
{
	uint64_t generator_length, encoder_length;
	uint64_t max_model_size;
	bool lpips;
	char *config_text;
	size_t config_length;
	char *entries[2];    /* IMPORT: where in its file each network is; NULL: not said */
	uint8_t *body;       /* of the request, once it is answered */
	FormatFile files[2]; /* generator, encoder */
	int nfiles;
	NnTrainOptions init; /* CREATE: how fresh weights are drawn; the rest counts for nothing */
	int threads;         /* CREATE: share the drawing of weights */
	NnParams params;     /* CREATE */
	float *values;       /* CREATE */
	NnConfig config;
	char *canonical; /* text of config; malloc'ed by the neural core, as the next */
	char *assumed;   /* options that nothing told; NULL: none */
	NnTensor *tensors;
	int ntensors;
	BicycleTensor *headers;
	BicycleImported answer;
} ImportWork;

static void
import_work_free(void *arg)
{
	ImportWork *work = arg;

	for (int i = 0; i < work->nfiles; i++)
		format_free(&work->files[i]);
	free(work->entries[0]);
	free(work->entries[1]);
	nn_params_free(&work->params);
	free(work->values);
	free(work->body);
	free(work->config_text);
	free(work->canonical);
	free(work->assumed);
	free(work->tensors);
	free(work->headers);
	free(work);
}

static bool
no_memory(Request *request)
{
	return error_memory(&request->error, "a model");
}

/* ---- Files --------------------------------------------------------------- */

void
import_format_error(FormatStatus status, const FormatError *format, EngineError *error)
{
	error_set(error,
			  status == FORMAT_ELIMIT    ? "54000"
			  : status == FORMAT_ENOMEM  ? "53200"
			  : status == FORMAT_ECHOICE ? "22023"
										 : "22P03",
			  "%s", format->message);
	error_detail(error, "%s", format->detail);
	error_hint(error, "%s", format->hint);
}

bool
import_read_file(const uint8_t *bytes, size_t length, FormatFile *file, EngineError *error)
{
	FormatError format;
	FormatStatus status = format_read(bytes, length, file, &format);

	if (status != FORMAT_OK)
		import_format_error(status, &format, error);
	return status == FORMAT_OK;
}

/* Keeps a text of the object's; NULL is none. False: it is not a text. */
static bool
keep_entry(const json_t *value, char **entry)
{
	if (value == NULL)
		return true;
	if (!json_is_string(value) || json_string_length(value) == 0)
		return false;
	free(*entry);
	*entry = strdup(json_string_value(value));
	return *entry != NULL;
}

/*
 * Takes "entry" out of the configuration: where in its file each network is, a
 * text for the generator, or an object of texts for G and E. It is no option of
 * the networks, and is not stored.
 */
static bool
take_entries(Request *request, ImportWork *work)
{
	json_t *config, *entry;
	NnError error = { 0 };
	bool good;
	char *text = NULL;

	if (nn_options_load(work->config_text, work->config_length, "model", &config, &error) != NN_OK)
		return error_from_nn(&request->error, &error);
	entry = json_object_get(config, "entry");
	good = entry == NULL || keep_entry(entry, &work->entries[0]) ||
		   (json_is_object(entry) && keep_entry(json_object_get(entry, "G"), &work->entries[0]) &&
			keep_entry(json_object_get(entry, "E"), &work->entries[1]));
	if (entry != NULL && good)
	{
		json_object_del(config, "entry");
		text = json_dumps(config, JSON_COMPACT);
	}
	json_decref(config);
	if (!good)
	{
		error_set(&request->error, "22023", "invalid value for model option \"entry\"");
		error_detail(&request->error, "It must be a name, or an object of names for \"G\" and "
									  "\"E\".");
		return false;
	}
	if (entry == NULL)
		return true;
	if (text == NULL)
		return no_memory(request);
	free(work->config_text);
	work->config_text = text;
	work->config_length = strlen(text);
	return true;
}

/* A file's network, and its tensors under their official names. */
static bool
enter_file(Request *request, FormatFile *file, const char *entry, NnNetwork network)
{
	FormatError format;
	FormatStatus status = format_enter(file, entry, nn_network_name(network), &format);
	int prefix;

	if (status != FORMAT_OK)
	{
		import_format_error(status, &format, &request->error);
		return false;
	}
	for (int i = 0; i < file->ntensors; i++)
		file->tensors[i].network = network;
	prefix = nn_names_prefix(file->tensors, file->ntensors, network);
	for (int i = 0; i < file->ntensors; i++)
		file->tensors[i].name += prefix;
	return true;
}

static bool
read_files(Request *request, ImportWork *work)
{
	const uint8_t *bytes = request->body;
	uint64_t lengths[2] = { work->generator_length, work->encoder_length };
	const NnNetwork networks[2] = { work->lpips ? NN_NET_L : NN_NET_G,
									work->lpips ? NN_NET_L : NN_NET_E };

	for (int i = 0; i < 2 && lengths[i] > 0; i++)
	{
		executor_progress();
		if (!import_read_file(bytes, lengths[i], &work->files[i], &request->error))
			return false;
		work->nfiles++;
		if (!enter_file(request, &work->files[i], work->entries[i], networks[i]))
			return false;
		work->ntensors += work->files[i].ntensors;
		bytes += lengths[i];
	}
	return true;
}

static bool
collect(Request *request, ImportWork *work)
{
	int n = 0;

	work->tensors = calloc((size_t) work->ntensors + 1, sizeof(NnTensor));
	if (work->tensors == NULL)
		return no_memory(request);
	for (int i = 0; i < work->nfiles; i++)
		for (int j = 0; j < work->files[i].ntensors; j++)
			work->tensors[n++] = work->files[i].tensors[j];
	return true;
}

/* Which networks these are; leaves out what does not belong to them. */
static bool
infer(Request *request, ImportWork *work)
{
	bool *keep = calloc((size_t) work->ntensors + 1, sizeof(bool));
	NnError error = { 0 };
	int n = 0;

	if (keep == NULL)
		return no_memory(request);
	if (nn_config_infer(&work->config, work->config_text, work->config_length, work->tensors,
						work->ntensors, keep, &work->assumed, &error) != NN_OK)
	{
		free(keep);
		return error_from_nn(&request->error, &error);
	}
	for (int i = 0; i < work->ntensors; i++)
	{
		if (!keep[i])
			continue;
		work->tensors[n++] = work->tensors[i];
	}
	work->ntensors = n;
	free(keep);
	return true;
}

/* A diverged training run leaves weights that are not numbers. */
static bool
check_finite(Request *request, const ImportWork *work)
{
	for (int i = 0; i < work->ntensors; i++)
		if (!nn_tensor_is_finite(&work->tensors[i]))
		{
			error_set(&request->error, "22P03", "model file holds weights that are not finite");
			error_detail(&request->error, "Tensor \"%s\" of network %s has an infinity or a NaN.",
						 work->tensors[i].name, nn_network_name(work->tensors[i].network));
			return false;
		}
	return true;
}

/* ---- LPIPS --------------------------------------------------------------- */

/* Backbone and heads are one network; what it does not need is left out. */
static bool
take_metric(Request *request, ImportWork *work)
{
	bool *keep = calloc((size_t) work->ntensors + 1, sizeof(bool));
	NnError error = { 0 };
	int n = 0;

	if (keep == NULL)
		return no_memory(request);
	if (nn_metric_check(&work->config, work->tensors, work->ntensors, keep, &error) != NN_OK)
	{
		free(keep);
		return error_from_nn(&request->error, &error);
	}
	for (int i = 0; i < work->ntensors; i++)
		if (keep[i])
			work->tensors[n++] = work->tensors[i];
	work->ntensors = n;
	free(keep);
	return true;
}

static bool
configure_metric(Request *request, ImportWork *work)
{
	NnError error = { 0 };

	if (nn_config_parse(&work->config, work->config_text, work->config_length, &error) != NN_OK)
		return error_from_nn(&request->error, &error);
	if (work->config.metric != NN_METRIC_NONE)
		return true;
	error_set(&request->error, "08P01", "configuration is not that of LPIPS");
	return false;
}

/* ---- The answer ---------------------------------------------------------- */

static bool
prepare(Request *request, ImportWork *work)
{
	uint64_t total = 0;

	work->canonical = nn_config_print(&work->config);
	work->headers = calloc((size_t) work->ntensors + 1, sizeof(BicycleTensor));
	if (work->canonical == NULL || work->headers == NULL)
		return no_memory(request);
	if (!stream_order(&work->config, work->tensors, work->ntensors, &request->error))
		return false;
	for (int i = 0; i < work->ntensors; i++)
	{
		if (!stream_header(&work->tensors[i], &work->headers[i], &request->error))
			return false;
		total += sizeof(BicycleTensor) + work->tensors[i].nbytes;
	}
	work->answer.stream_length = total;
	work->answer.config_length = (uint32_t) strlen(work->canonical);
	work->answer.ntensors = (uint32_t) work->ntensors;
	work->answer.assumed_length = work->assumed ? (uint32_t) strlen(work->assumed) : 0;
	return model_hash(work->canonical, work->tensors, work->ntensors, work->answer.hash,
					  &request->error);
}

static void
import_reply(Request *request)
{
	ImportWork *work = request->work;
	size_t config = sizeof(work->answer) + work->answer.config_length;
	size_t length = config + work->answer.assumed_length;
	uint8_t *head = malloc(length);

	if (head == NULL)
	{
		request_fail_memory(request, "a model");
		return;
	}
	memcpy(head, &work->answer, sizeof(work->answer));
	memcpy(head + sizeof(work->answer), work->canonical, work->answer.config_length);
	if (work->assumed)
		memcpy(head + config, work->assumed, work->answer.assumed_length);
	/* The end frees the body, but frames on their way point into it. */
	work->body = request->body;
	request->body = NULL;
	request_reply_part(request, BICYCLE_RESULT, head, length, true);
	free(head);
	for (int i = 0; i < work->ntensors; i++)
	{
		request_reply_part(request, BICYCLE_DATA, &work->headers[i], sizeof(BicycleTensor), false);
		if (work->tensors[i].nbytes > 0)
			request_reply_part(request, BICYCLE_DATA, work->tensors[i].data,
							   work->tensors[i].nbytes, false);
	}
	request_reply_part(request, BICYCLE_END, NULL, 0, true);
}

/* ---- IMPORT -------------------------------------------------------------- */

static void
import_files(Request *request)
{
	ImportWork *work = request->work;

	if (work->lpips)
	{
		if (configure_metric(request, work) && read_files(request, work) &&
			collect(request, work) && take_metric(request, work) && check_finite(request, work))
			prepare(request, work);
		return;
	}
	if (take_entries(request, work) && read_files(request, work) && collect(request, work) &&
		infer(request, work) && check_finite(request, work))
		prepare(request, work);
}

/* ---- CREATE -------------------------------------------------------------- */

/* First half, on the loader: the configuration. */
static void
create_configure(Request *request)
{
	ImportWork *work = request->work;
	NnError error = { 0 };
	unsigned networks = 1u << NN_NET_G;

	if (nn_create_options_parse(&work->config, &work->init, work->config_text, work->config_length,
								&error) != NN_OK)
	{
		error_from_nn(&request->error, &error);
		return;
	}
	if (work->config.net_e != NN_ENCODER_NONE)
		networks |= 1u << NN_NET_E;
	if (nn_params_of(&work->config, networks, &work->params, &error) != NN_OK)
		error_from_nn(&request->error, &error);
}

static void
create_configured(Request *request)
{
	ImportWork *work = request->work;
	size_t bytes = work->params.total * sizeof(float);

	if (request_check_model_size(request->engine, bytes, work->max_model_size, &request->error))
		request_wait_memory(request, 0, bytes);
	else
		request_fail(request, &request->error);
}

/* Tensors that point into the flat values. */
static bool
make_tensors(Request *request, ImportWork *work)
{
	static const int64_t zero; /* num_batches_tracked of a network that was never trained */

	work->ntensors = work->params.n;
	work->tensors = calloc((size_t) work->ntensors + 1, sizeof(NnTensor));
	if (work->tensors == NULL)
		return no_memory(request);
	for (int i = 0; i < work->params.n; i++)
	{
		const NnParam *param = &work->params.list[i];
		NnTensor *tensor = &work->tensors[i];

		tensor->name = param->name;
		tensor->network = param->network;
		tensor->ndim = param->ndim;
		memcpy(tensor->shape, param->shape, (size_t) param->ndim * sizeof(int64_t));
		tensor->dtype = param->integer ? NN_I64 : NN_F32;
		tensor->data = param->integer ? (const void *) &zero : work->values + param->offset;
		tensor->nbytes = param->integer ? sizeof(zero) : param->count * sizeof(float);
	}
	return true;
}

/* What may take minutes gives the loader back when nobody waits for it. */
static bool
still_wanted(void *request)
{
	executor_progress();
	return request_is_wanted(request);
}

static bool
draw_weights(Request *request, ImportWork *work)
{
	NnFresh fresh = { .init = work->init.init_type,
					  .gain = (float) work->init.init_gain,
					  .seed = work->init.seed,
					  .threads = work->threads,
					  .wanted = still_wanted,
					  .arg = request };
	NnError error = { 0 };

	for (int i = 0; i < work->params.n; i++)
	{
		float *values = work->values + work->params.list[i].offset;

		executor_progress();
		if (nn_param_init(&work->params, i, &fresh, values, &error) != NN_OK)
			return error_from_nn(&request->error, &error);
	}
	return true;
}

/* Second half, on the loader: the weights. */
static void
create_weights(Request *request)
{
	ImportWork *work = request->work;

	work->values = calloc(work->params.total + 1, sizeof(float));
	if (work->values == NULL)
		no_memory(request);
	else if (draw_weights(request, work) && make_tensors(request, work))
		prepare(request, work);
}

/* ---- Beginning ----------------------------------------------------------- */

void
import_begin(Request *request, const BicycleImport *import, const uint8_t *config)
{
	ImportWork *work = calloc(1, sizeof(*work));

	if (work != NULL)
	{
		request->work = work;
		request->work_free = import_work_free;
		work->config_text = malloc((size_t) import->config_length + 1);
	}
	if (work == NULL || work->config_text == NULL)
	{
		request_fail_memory(request, "a model");
		return;
	}
	work->generator_length = import->generator_length;
	work->encoder_length = import->encoder_length;
	work->max_model_size = import->max_model_size;
	work->lpips = import->lpips == 1;
	work->config_length = import->config_length;
	memcpy(work->config_text, config, import->config_length);
	work->config_text[import->config_length] = '\0';
	if (request->kind->type == BICYCLE_CREATE)
		loader_add(request, create_configure, create_configured);
}

/* The files are here. */
void
import_run(Request *request)
{
	loader_add(request, import_files, import_reply);
}

/* The memory for new weights is. */
void
create_run(Request *request)
{
	ImportWork *work = request->work;

	work->threads = settings_threads(&request->engine->settings);
	loader_add(request, create_weights, import_reply);
}
