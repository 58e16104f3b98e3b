/*
 * border.c
 *	  What zero padding does to a latent code that joins a convolution's input
 *	  as constant channels. Pure functions.
 */
#include "nn/border.h"

#include "common/invariant.h"

/* Positions that padding cuts, in the order in which they come. */
enum
{
	CUT_FRONT,
	CUT_NOWHERE,
	CUT_BACK,
	CUT_BOTH /* there is one position only */
};

static bool
find_classes(NnBorder *border, int in, int out, const NnConvArgs *a)
{
	int class = 0;

	if (a->pad > 1)
		return false;
	*border = (NnBorder){ .n = a->pad == 0 ? 1 : NN_MAX_BORDER };
	for (int k = 0; k < border->n; k++)
	{
		border->tap0[k] = a->pad == 1 && (k == CUT_FRONT || k == CUT_BOTH);
		border->tap1[k] = a->kernel - (k == CUT_BACK || k == CUT_BOTH);
	}
	for (int i = 0; i < out; i++)
	{
		int start = i * a->stride - a->pad;
		bool front = start < 0, back = in - start < a->kernel;
		int of = a->pad == 0 ? 0
				 : back      ? (front ? CUT_BOTH : CUT_BACK)
							 : (front ? CUT_FRONT : CUT_NOWHERE);

		INVARIANT(of >= class && of < border->n);
		while (class < of)
			border->first[++class] = i;
		if (i == out / 2)
			border->centre = class;
	}
	while (class < NN_MAX_BORDER)
		border->first[++class] = out;
	return true;
}

NnStatus
nn_borders(const NnNode *node, NnShape in, NnShape out, NnBorder *rows, NnBorder *columns,
		   NnError *error)
{
	if (find_classes(rows, in.h, out.h, &node->conv) &&
		find_classes(columns, in.w, out.w, &node->conv))
		return NN_OK;
	return nn_fail(error, NN_EUNSUPPORTED, "padding of layer \"%s\" is too wide for a latent",
				   node->name);
}

void
nn_border_sums(const NnBorder *rows, const NnBorder *columns, const float *w, int inputs, int nz,
			   int c, int kernel, float *sums)
{
	for (int y = 0; y < rows->n; y++)
		for (int x = 0; x < columns->n; x++)
			for (int i = 0; i < nz; i++)
				for (int o = 0; o < c; o++)
				{
					const float *tap =
						w + ((size_t) o * (inputs + nz) + inputs + i) * kernel * kernel;
					double sum = 0;

					for (int ky = rows->tap0[y]; ky < rows->tap1[y]; ky++)
						for (int kx = columns->tap0[x]; kx < columns->tap1[x]; kx++)
							sum += tap[ky * kernel + kx];
					*sums++ = (float) sum;
				}
}
