/*
 * Proves which of some made-up engines is taken without being timed: the first,
 * unless it leaves tensor cores idle that numbers and channels would fill, or
 * reads many weights by few blocks, and a later one does not, at no greater
 * cost; and that the first is taken where none is better. Of engines that are
 * timed it is the fastest; where none could be, it is as if they were not to
 * be, but for that it is not kept for later starts.
 */
#include "tap.h"

#include "nn/cuda/conv_choice.h"

#define MB ((int64_t) 1 << 20)

/* 4.5 MB of weights, 32 blocks: bilinear upsampling has it. */
static const CudaConvShape few = { .type = KERNEL_BF16,
								   .n = 1,
								   .h = 34,
								   .w = 34,
								   .c = 1024,
								   .oh = 32,
								   .ow = 32,
								   .k = 256,
								   .kernel = 3,
								   .stride = 1 };

static const CudaConvChoice engines[] = {
	{ .engine = 0 },                                                        /* plain */
	{ .engine = 1, .tensor_cores = true, .tile = 5 },                       /* by few blocks */
	{ .engine = 2, .tensor_cores = true, .split = 8 },                      /* by enough */
	{ .engine = 3, .tensor_cores = true, .split = 8, .workspace = 5 * MB }, /* a copy */
	{ .engine = 4, .split = 8 },                                            /* enough, plain */
};

/* Names of engines, in the order that the library gives them. */
typedef struct Case
{
	const char *what, *list;
	char taken;
	bool wide;   /* a larger map: enough blocks */
	bool narrow; /* eight channels */
	bool strict, tf32;
	CudaConvKind kind;
} Case;

static const Case list[] = {
	{ "nothing speaks against the first", "120", '1', .wide = true },
	{ "the first of those on tensor cores", "0012", '1', .wide = true },
	{ "nor is one with a copy of the weights too much for tensor cores", "03", '3', .wide = true },
	{ "but one without a copy is before it", "032", '2' },
	{ "in strict fp32 there are none", "00", '0', .wide = true, .strict = true },
	{ "in TF32 the first, for the heuristic knows small ones", "01", '0', .wide = true,
	  .strict = true, .tf32 = true },
	{ "eight channels do not fill them", "01", '0', .narrow = true },
	{ "of few blocks, the first that splits sums", "1120", '2' },
	{ "not at the cost of a copy of the weights", "13", '1' },
	{ "a copy is nothing against the first", "32", '3' },
	{ "tensor cores are worth more than blocks", "41", '1' },
	{ "where none is better, the first", "111", '1' },
	{ "where none has tensor cores, one of enough blocks", "040", '4' },
	{ "sums of a filter's gradient are long, and its blocks few by nature", "12", '1',
	  .kind = CUDA_CONV_FILTER },
	{ "but it is on tensor cores", "02", '2', .kind = CUDA_CONV_FILTER },
	{ "so is the gradient of inputs, and by enough blocks", "012", '2', .kind = CUDA_CONV_DATA },
};

static void
test_case(const Case *c)
{
	CudaConvChoice choices[8];
	const CudaConvChoice *pointers[8];
	CudaConvShape shape = few;
	int n = (int) strlen(c->list), best;

	shape.kind = c->kind;
	shape.n = c->wide ? 16 : 1;
	shape.type = c->strict ? KERNEL_F32 : KERNEL_BF16;
	shape.tf32 = c->tf32;
	shape.c = c->narrow ? KERNEL_VECTOR : shape.c;
	for (int i = 0; i < n; i++)
	{
		choices[i] = engines[c->list[i] - '0'];
		choices[i].place = i;
		pointers[i] = &choices[i];
	}
	best = cuda_conv_best(&shape, pointers, n);
	ok(c->list[best] == c->taken && strchr(c->list, c->taken) == &c->list[best],
	   "%s: of engines %s, number %d", c->what, c->list, best);
	for (int i = 0; i < best; i++)
		if (cuda_conv_faults(&shape, &choices[i]) == 0)
			ok(false, "nothing speaks against engine %c before it", c->list[i]);
}

static void
test_timed(const char *what, const char *names, const float *ms, char taken, bool kept)
{
	CudaConvChoice choices[8];
	const CudaConvChoice *pointers[8];
	int n = (int) strlen(names), best;

	for (int i = 0; i < n; i++)
	{
		choices[i] = engines[names[i] - '0'];
		choices[i].place = i;
		choices[i].ms = ms[i];
		pointers[i] = &choices[i];
	}
	best = cuda_conv_fastest(&few, pointers, n);
	ok(names[best] == taken && cuda_conv_is_to_keep(&choices[best]) == kept,
	   "%s: of engines %s, number %d", what, names, best);
}

static void
test_times(void)
{
	const float never[] = { CUDA_TIME_NEVER, CUDA_TIME_NEVER, CUDA_TIME_NEVER },
				some[] = { CUDA_TIME_NEVER, 2, 1 }, all[] = { 1, 2, 3 };
	CudaConvChoice read = { .kept = true }, untimed = { .engine = 1 };

	test_timed("the fastest", "012", all, '0', true);
	test_timed("of those that could be timed", "012", some, '2', true);
	test_timed("if none could be, the best untimed, for this time", "012", never, '2', false);
	ok(cuda_conv_is_to_keep(&untimed), "what is not to be timed is kept");
	ok(!cuda_conv_is_to_keep(&read), "what was read is there already");
}

int
main(void)
{
	test_times();
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
		test_case(&list[i]);
	return done_testing();
}
