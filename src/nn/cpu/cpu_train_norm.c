/*
 * cpu_train_norm.c
 *	  Norms, dropout and activations in training, forward and backward.
 *
 * R1 A piece is a block of channels of one image (of all with batch norm),
 *    which one thread walks in stretches of pixels that its cache holds, once
 *    for the statistics and once for the result.
 * R2 Without a norm there are no sums: pieces are stretches of pixels, and maps
 *    without gaps just long vectors.
 * R3 How a map is cut changes no bit.
 * R4 Backward computes the gradient behind the activations in both walks rather
 *    than keep it.
 */
#include "nn/cpu/cpu_train.h"

#include <math.h>
#include <string.h>

/* Channels [c0, c0 + c) of pixels [first, end) of all images in order. */
typedef struct Piece
{
	const NnOperands *op;
	size_t first, end;
	int image; /* whose statistics it has */
	int c0, c;
	CpuNorm norm; /* of the piece; pointers are of the stretch at hand */
} Piece;

static size_t
lesser(size_t a, size_t b)
{
	return a < b ? a : b;
}

static CpuPixels
pixels_at(const Piece *piece, const NnMap *map, size_t pixel)
{
	return (CpuPixels){ map->data ? map->f32 + pixel * map->pitch + piece->c0 : NULL,
						(ptrdiff_t) map->pitch };
}

/* Mean and mean square deviation of each channel. */
static void
compute_statistics(const Piece *piece, float *mean, float *var)
{
	double centre[CPU_NORM_CHANNELS] = { 0 }, m2[CPU_NORM_CHANNELS] = { 0 };
	int n = (int) (piece->end - piece->first);

	cpu_training(piece->op)->kernels->train->norm_moments(
		pixels_at(piece, &piece->op->in[0], piece->first), n, piece->c, centre, m2);
	for (int k = 0; k < piece->c; k++)
	{
		mean[k] = (float) centre[k];
		var[k] = (float) (m2[k] / n);
	}
}

/* The norm of a piece, from statistics kept, or computed here and kept. */
static void
prepare_piece(Piece *piece, bool compute)
{
	const NnOperands *op = piece->op;
	CpuNorm *norm = &piece->norm;
	bool batch = op->node->norm.kind == NN_NORM_BATCH;
	float *mean, *var;

	memcpy(norm->act, op->node->norm.act, sizeof(norm->act));
	for (int k = 0; k < piece->c; k++)
	{
		norm->mean[k] = norm->shift[k] = 0;
		norm->inverse[k] = norm->scale[k] = 1;
	}
	if (op->node->norm.kind == NN_NORM_NONE)
		return;
	mean = op->stats.f32 + piece->image * op->stats.pitch + piece->c0;
	var = mean + op->in[0].shape.c;
	if (compute)
		compute_statistics(piece, mean, var);
	for (int k = 0; k < piece->c; k++)
	{
		norm->mean[k] = mean[k];
		norm->inverse[k] = (float) (1 / sqrt(var[k] + NORM_EPSILON));
		norm->scale[k] = norm->inverse[k] * (batch ? op->weight.f32[piece->c0 + k] : 1);
		norm->shift[k] = batch ? op->bias.f32[piece->c0 + k] : 0;
	}
}

/* Points the norm at n pixels from p on, and draws their dropout. */
static void
move_to(Piece *piece, size_t p, int n, float *masks)
{
	const NnOperands *op = piece->op;

	piece->norm.x = pixels_at(piece, &op->in[0], p);
	for (int k = 0; k < 2; k++)
	{
		piece->norm.y[k] = pixels_at(piece, &op->out[k], p);
		piece->norm.dy[k] = pixels_at(piece, &op->dout[k], p);
	}
	if (op->node->norm.dropout <= 0)
		return;
	for (int i = 0; i < n; i++)
		nn_dropout_mask(op->training->seed, op->training->iteration, op->index,
						(p + i) * op->in[0].shape.c + piece->c0, piece->c, op->node->norm.dropout,
						masks + i * CPU_NORM_CHANNELS);
	piece->norm.mask = (CpuPixels){ masks, CPU_NORM_CHANNELS };
}

static void
forward_piece(Piece *piece)
{
	float masks[CPU_NORM_PIXELS * CPU_NORM_CHANNELS];

	prepare_piece(piece, true);
	for (size_t p = piece->first; p < piece->end; p += CPU_NORM_PIXELS)
	{
		int n = (int) lesser(piece->end - p, CPU_NORM_PIXELS);

		move_to(piece, p, n, masks);
		cpu_training(piece->op)->kernels->train->norm(&piece->norm, n, piece->c);
	}
}

/*
 * With xhat = (x - mean) / sqrt(var + eps) over m elements and g the gradient
 * of xhat: dx = (g - mean(g) - xhat mean(g xhat)) / sqrt(var + eps). Batch
 * norm's own gradients are the sums behind those means.
 */
static void
backward_piece(Piece *piece)
{
	const NnOperands *op = piece->op;
	double sum[CPU_NORM_CHANNELS] = { 0 }, product[CPU_NORM_CHANNELS] = { 0 };
	float masks[CPU_NORM_PIXELS * CPU_NORM_CHANNELS], mean_g[CPU_NORM_CHANNELS],
		mean_product[CPU_NORM_CHANNELS];

	prepare_piece(piece, false);
	for (size_t p = piece->first; op->node->norm.kind != NN_NORM_NONE && p < piece->end;
		 p += CPU_NORM_PIXELS)
	{
		int n = (int) lesser(piece->end - p, CPU_NORM_PIXELS);

		move_to(piece, p, n, masks);
		cpu_training(op)->kernels->train->norm_sums(&piece->norm, n, piece->c, sum, product);
	}
	for (int k = 0; k < piece->c; k++)
	{
		mean_g[k] = (float) (sum[k] / (double) (piece->end - piece->first));
		mean_product[k] = (float) (product[k] / (double) (piece->end - piece->first));
		if (op->dweight.data)
			op->dweight.f32[piece->c0 + k] =
				(float) product[k] +
				(op->weight_mode == NN_GRAD_ACCUMULATE ? op->dweight.f32[piece->c0 + k] : 0);
		if (op->dbias.data)
			op->dbias.f32[piece->c0 + k] =
				(float) sum[k] +
				(op->bias_mode == NN_GRAD_ACCUMULATE ? op->dbias.f32[piece->c0 + k] : 0);
	}
	for (size_t p = piece->first; op->din[0].data && p < piece->end; p += CPU_NORM_PIXELS)
	{
		int n = (int) lesser(piece->end - p, CPU_NORM_PIXELS);

		move_to(piece, p, n, masks);
		cpu_training(op)->kernels->train->norm_gradient(
			&piece->norm, n, piece->c, mean_g, mean_product, pixels_at(piece, &op->din[0], p),
			op->in_mode[0] == NN_GRAD_ACCUMULATE);
	}
}

/* ---- Pieces -------------------------------------------------------------- */

typedef void (*PieceOp)(Piece *piece);

/* With sums: blocks of channels, as wide as leaves one for each thread. */
static void
for_channels(const NnOperands *op, PieceOp run)
{
	NnShape s = op->in[0].shape;
	int images = op->node->norm.kind == NN_NORM_BATCH ? 1 : s.n, block = CPU_NORM_CHANNELS;
	size_t pixels = nn_map_pixels(&op->in[0]) / images;

	while (block > CPU_TRAIN_BLOCK && images * ((s.c + block - 1) / block) < cpu_threads(op))
		block /= 2;
#pragma omp parallel for collapse(2) schedule(static) \
	num_threads(cpu_team(op, nn_map_count(&op->in[0])))
	for (int n = 0; n < images; n++)
		for (int c0 = 0; c0 < s.c; c0 += block)
		{
			Piece piece = { .op = op,
							.first = n * pixels,
							.end = (n + 1) * pixels,
							.image = n,
							.c0 = c0,
							.c = (int) lesser(block, s.c - c0) };

			run(&piece);
		}
}

/* Without sums: stretches of pixels. */
static void
for_stretches(const NnOperands *op, PieceOp run)
{
	size_t pixels = nn_map_pixels(&op->in[0]);
	int c = op->in[0].shape.c;

#pragma omp parallel for collapse(2) schedule(static) num_threads(cpu_team(op, pixels *c))
	for (size_t p = 0; p < pixels; p += CPU_NORM_PIXELS)
		for (int c0 = 0; c0 < c; c0 += CPU_NORM_CHANNELS)
		{
			Piece piece = { .op = op,
							.first = p,
							.end = lesser(p + CPU_NORM_PIXELS, pixels),
							.c0 = c0,
							.c = (int) lesser(CPU_NORM_CHANNELS, c - c0) };

			run(&piece);
		}
}

/* A map of `pixels` pixels of c channels in the memory of a dense one. */
static void
reshape(NnMap *map, size_t skip, int pixels, int c)
{
	if (!map->data)
		return;
	map->f32 += skip;
	map->shape = (NnShape){ 1, 1, pixels, c };
	map->pitch = c;
}

static void
reshape_all(NnOperands *op, size_t skip, int pixels, int c)
{
	reshape(&op->in[0], skip, pixels, c);
	reshape(&op->din[0], skip, pixels, c);
	for (int k = 0; k < 2; k++)
	{
		reshape(&op->out[k], skip, pixels, c);
		reshape(&op->dout[k], skip, pixels, c);
	}
}

/* Whether no map has gaps between its pixels. */
static bool
is_dense(const NnOperands *op)
{
	const NnMap *maps[] = { &op->in[0],  &op->din[0],  &op->out[0],
							&op->out[1], &op->dout[0], &op->dout[1] };

	for (size_t i = 0; i < sizeof(maps) / sizeof(maps[0]); i++)
		if (maps[i]->data && maps[i]->pitch != (size_t) op->in[0].shape.c)
			return false;
	return true;
}

static void
for_pieces(const NnOperands *op, PieceOp run)
{
	size_t numbers = nn_map_count(&op->in[0]);
	NnOperands flat = *op;

	if (op->node->norm.kind != NN_NORM_NONE)
		for_channels(op, run);
	else if (op->node->norm.dropout > 0 || !is_dense(op))
		for_stretches(op, run);
	else
	{
		reshape_all(&flat, 0, (int) (numbers / CPU_NORM_CHANNELS), CPU_NORM_CHANNELS);
		for_stretches(&flat, run);
		flat = *op;
		reshape_all(&flat, numbers / CPU_NORM_CHANNELS * CPU_NORM_CHANNELS, 1,
					(int) (numbers % CPU_NORM_CHANNELS));
		for_stretches(&flat, run);
	}
}

/* x (N, H, W, C) -> up to two outputs of that shape */
NnStatus
cpu_train_norm_act(const NnOperands *op, NnError *error)
{
	for_pieces(op, forward_piece);
	return NN_OK;
}

NnStatus
cpu_train_norm_act_backward(const NnOperands *op, NnError *error)
{
	for_pieces(op, backward_piece);
	return NN_OK;
}
