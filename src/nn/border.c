/*
 * border.c
 *	  What zero padding does to a latent code that joins a convolution's input
 *	  as constant channels. Pure functions.
 */
#include "nn/border.h"

static bool
find_classes(NnBorder *border, int in, int out, const NnConvArgs *a)
{
	border->n = 0;
	for (int i = 0; i < out; i++)
	{
		int start = i * a->stride - a->pad;
		int tap0 = start < 0 ? -start : 0;
		int tap1 = in - start < a->kernel ? in - start : a->kernel;
		int last = border->n - 1;

		if (last < 0 || border->tap0[last] != tap0 || border->tap1[last] != tap1)
		{
			if (border->n == NN_MAX_BORDER)
				return false;
			last = border->n++;
			border->first[last] = i;
			border->tap0[last] = tap0;
			border->tap1[last] = tap1;
		}
		if (i == out / 2)
			border->centre = last;
	}
	border->first[border->n] = out;
	return true;
}

NnStatus
nn_borders(const NnNode *node, NnShape in, NnShape out, NnBorder *rows, NnBorder *columns,
		   NnError *error)
{
	if (find_classes(rows, in.h, out.h, &node->conv) &&
		find_classes(columns, in.w, out.w, &node->conv))
		return NN_OK;
	return nn_fail(error, NN_EUNSUPPORTED, "kernel of layer \"%s\" is too large for a latent",
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
