/*
 * deflate.c
 *	  Compressing the filtered rows of images: bytes, and runs of one byte.
 *
 * What a filter leaves of a picture has few repetitions but runs, and zlib's
 * strategy for that, Z_RLE, makes smaller files of it than its own search. This
 * does the same, to the same size within a percent, in a third of the time. The
 * bytes depend on no library's version.
 *
 * R1 A block has a code of its own for bytes and lengths, of at most MAX_BITS
 *    bits, so that four bytes fit in a word beside the seven bits that may wait
 *    there; and one distance, 1.
 * R2 A code of more than one symbol is complete: other inflaters than zlib's
 *    want it, too.
 * R3 How much a block takes is known before it is written, so there is one look
 *    at the memory for all of it.
 *
 * Nothing here is kept between calls but what is in Deflate.
 */
#include "common/invariant.h"
#include "image/deflate.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define MAX_BITS 14
#define MAX_LENGTH_BITS 7 /* of the code that the lengths of a code are written in */
#define LEAST_RUN 3
#define MOST_RUN 258
#define END_OF_BLOCK 256
#define SYMBOLS 286
#define LENGTH_SYMBOLS 19
#define SLACK 16 /* a word is written whole, and the stream's checksum comes behind it */

typedef struct Code
{
	uint8_t bits[SYMBOLS]; /* 0: it does not occur */
	uint16_t word[SYMBOLS];
} Code;

/* Lengths of runs, by symbol: what the first of them is, and bits behind it. */
static const uint16_t run_base[] = { 3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
									 15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
									 67, 83, 99, 115, 131, 163, 195, 227, 258 };
static const uint8_t run_extra[] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
									 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
#define RUN_SYMBOLS ((int) sizeof(run_extra))

/* ---- Memory -------------------------------------------------------------- */

bool
deflate_reserve(DeflateBytes *out, size_t n)
{
	size_t needed, capacity;
	uint8_t *bytes;

	INVARIANT(out->length <= out->capacity);
	if (n <= out->capacity - out->length)
		return true;
	if (n > PTRDIFF_MAX / 2 || out->length > PTRDIFF_MAX / 2 - n)
		return false;
	needed = out->length + n;
	capacity = out->capacity < needed / 2 ? needed : 2 * out->capacity;
	if (capacity < needed)
		capacity = needed;
	bytes = realloc(out->bytes, capacity);
	if (bytes == NULL)
		return false;
	out->bytes = bytes;
	out->capacity = capacity;
	return true;
}

/* ---- Codes --------------------------------------------------------------- */

/* Symbols that occur, rarest first. Returns how many. */
static int
sort_symbols(const uint32_t *count, int n, uint16_t *order)
{
	int m = 0;

	for (int i = 0; i < n; i++)
	{
		int at = m;

		if (count[i] == 0)
			continue;
		for (m++; at > 0 && count[order[at - 1]] > count[i]; at--)
			order[at] = order[at - 1];
		order[at] = (uint16_t) i;
	}
	return m;
}

/*
 * How many of m symbols, sorted by count, get a word of how many bits.
 * Huffman's tree by two queues: of the symbols, and of inner nodes, which come
 * sorted.
 */
static void
count_words(const uint32_t *count, const uint16_t *order, int m, int words[SYMBOLS])
{
	uint32_t weight[2 * SYMBOLS];
	int parent[2 * SYMBOLS], depth[2 * SYMBOLS];
	int leaf = 0, inner = m, end = m;

	for (int i = 0; i < m; i++)
		weight[i] = count[order[i]];
	for (; end < 2 * m - 1; end++)
	{
		int least[2];

		for (int k = 0; k < 2; k++)
			least[k] =
				leaf < m && (inner == end || weight[leaf] <= weight[inner]) ? leaf++ : inner++;
		weight[end] = weight[least[0]] + weight[least[1]];
		parent[least[0]] = parent[least[1]] = end;
	}
	memset(words, 0, SYMBOLS * sizeof(int));
	depth[end - 1] = 0;
	for (int i = end - 2; i >= 0; i--)
	{
		depth[i] = depth[parent[i]] + 1;
		if (i < m)
			words[depth[i]]++;
	}
}

/*
 * No word longer than `most`; the code stays complete: those that are too long
 * become that long, and for what that is too much a shorter word becomes two.
 */
static void
limit_words(int words[SYMBOLS], int most)
{
	int used = 0;

	for (int bits = most + 1; bits < SYMBOLS; bits++)
		words[most] += words[bits];
	for (int bits = 1; bits <= most; bits++)
		used += words[bits] << (most - bits);
	for (; used > 1 << most; used--)
	{
		int bits = most - 1;

		while (words[bits] == 0)
			bits--;
		words[most]--;
		words[bits]--;
		words[bits + 1] += 2;
	}
	INVARIANT(used == 1 << most);
}

/* Words are sent from their first bit on, so they are turned round. */
static uint16_t
turned(unsigned word, int bits)
{
	unsigned turned = 0;

	for (int i = 0; i < bits; i++, word >>= 1)
		turned = turned << 1 | (word & 1);
	return (uint16_t) turned;
}

/* Of n symbols, of which two or more occur. */
static void
make_code(const uint32_t *count, int n, int most, Code *code)
{
	uint16_t order[SYMBOLS];
	int words[SYMBOLS], m = sort_symbols(count, n, order), at = 0;
	unsigned next = 0;

	INVARIANT(m >= 2);
	count_words(count, order, m, words);
	limit_words(words, most);
	memset(code, 0, sizeof(*code));
	for (int bits = most; bits > 0; bits--)
		for (int i = 0; i < words[bits]; i++)
			code->bits[order[at++]] = (uint8_t) bits;
	for (int bits = 1; bits <= most; bits++, next <<= 1)
		for (int i = 0; i < n; i++)
			if (code->bits[i] == bits)
				code->word[i] = turned(next++, bits);
}

/* ---- Runs ---------------------------------------------------------------- */

static unsigned
four_bytes(const uint8_t *p)
{
	uint32_t word;

	memcpy(&word, p, sizeof(word));
	return word;
}

/*
 * Where the next run begins, of bytes that are as the one before them; or end.
 */
static const uint8_t *
run_next(const uint8_t *p, const uint8_t *end)
{
	for (; end - p >= LEAST_RUN; p++)
	{
		uint32_t word = four_bytes(p - 1);

		if (word == (word << 8 | word >> 24))
			return p;
	}
	return end;
}

static int
run_length(const uint8_t *p, const uint8_t *end)
{
	int most = end - p < MOST_RUN ? (int) (end - p) : MOST_RUN, n = LEAST_RUN;

	while (n < most && p[n] == p[0])
		n++;
	return n;
}

/* As run_base has them, without a search. */
static int
run_symbol(int length)
{
	unsigned n = (unsigned) length - LEAST_RUN;
	int extra = n < 8 ? 0 : 29 - __builtin_clz(n);

	return length == MOST_RUN ? RUN_SYMBOLS - 1 : 4 * extra + (int) (n >> extra);
}

/* How often each symbol occurs; returns the bits behind them. */
static size_t
count_symbols(const uint8_t *in, const uint8_t *end, uint32_t count[SYMBOLS])
{
	uint32_t odd[END_OF_BLOCK] = { 0 }; /* bytes in turn, so that none waits for the one before */
	size_t bits = 0;

	memset(count, 0, SYMBOLS * sizeof(*count));
	while (in < end)
	{
		const uint8_t *run = run_next(in, end);

		for (; run - in >= 2; in += 2)
		{
			count[in[0]]++;
			odd[in[1]]++;
		}
		for (; in < run; in++)
			count[in[0]]++;
		if (in < end)
		{
			int length = run_length(in, end), symbol = run_symbol(length);

			count[END_OF_BLOCK + 1 + symbol]++;
			bits += run_extra[symbol] + 1u;
			in += length;
		}
	}
	for (int i = 0; i < END_OF_BLOCK; i++)
		count[i] += odd[i];
	count[END_OF_BLOCK] = 1;
	return bits;
}

/* ---- Bits ---------------------------------------------------------------- */

typedef struct BitWriter
{
	uint8_t *at;
	uint64_t bits;
	int n;
} BitWriter;

/* Whoever puts more than 57 bits sends between them. */
static inline void
put_bits(BitWriter *writer, unsigned value, int n)
{
	writer->bits |= (uint64_t) value << writer->n;
	writer->n += n;
}

static inline void
send_bits(BitWriter *writer)
{
	uint64_t word = htole64(writer->bits);

	memcpy(writer->at, &word, sizeof(word));
	writer->at += writer->n >> 3;
	writer->bits >>= writer->n & ~7;
	writer->n &= 7;
}

static inline void
put_symbol(BitWriter *writer, const Code *code, int symbol)
{
	put_bits(writer, code->word[symbol], code->bits[symbol]);
}

static void
put_run(BitWriter *writer, const Code *code, int length)
{
	int symbol = run_symbol(length);

	put_symbol(writer, code, END_OF_BLOCK + 1 + symbol);
	put_bits(writer, (unsigned) (length - run_base[symbol]), run_extra[symbol]);
	put_bits(writer, 0, 1); /* the distance, which is 1 */
	send_bits(writer);
}

static void
put_body(BitWriter *writer, const Code *code, const uint8_t *in, const uint8_t *end)
{
	while (in < end)
	{
		const uint8_t *run = run_next(in, end);

		for (; run - in >= 4; in += 4)
		{
			for (int i = 0; i < 4; i++)
				put_symbol(writer, code, in[i]);
			send_bits(writer);
		}
		for (; in < run; in++)
			put_symbol(writer, code, in[0]);
		send_bits(writer);
		if (in < end)
		{
			int length = run_length(in, end);

			put_run(writer, code, length);
			in += length;
		}
	}
	put_symbol(writer, code, END_OF_BLOCK);
	send_bits(writer);
}

/* ---- Headers of blocks --------------------------------------------------- */

/* The lengths of a code, in which repetitions are symbols of their own. */
typedef struct Lengths
{
	int symbols, n;
	uint8_t symbol[SYMBOLS + 1], extra[SYMBOLS + 1];
	Code code;
} Lengths;

/* A repetition of up to `most`: from `least` on, so many bits behind it. */
static const struct
{
	int least, most, extra;
} repetitions[] = { [16] = { 3, 6, 2 }, [17] = { 3, 10, 3 }, [18] = { 11, 138, 7 } };

static void
make_lengths(const Code *code, Lengths *lengths)
{
	uint32_t count[LENGTH_SYMBOLS] = { 0 };
	uint8_t all[SYMBOLS + 1];

	lengths->symbols = SYMBOLS;
	while (lengths->symbols > END_OF_BLOCK + 1 && code->bits[lengths->symbols - 1] == 0)
		lengths->symbols--;
	memcpy(all, code->bits, (size_t) lengths->symbols);
	all[lengths->symbols] = 1; /* of the distance */
	lengths->n = 0;
	for (int i = 0, same; i <= lengths->symbols; i += same)
	{
		int symbol = all[i];

		for (same = 1; i + same <= lengths->symbols && all[i + same] == all[i];)
			same++;
		if (symbol == 0 && same >= repetitions[18].least)
			symbol = 18;
		else if (symbol == 0 && same >= repetitions[17].least)
			symbol = 17;
		else if (i > 0 && symbol == all[i - 1] && same >= repetitions[16].least)
			symbol = 16;
		else
			same = 1;
		if (same > 1 && same > repetitions[symbol].most)
			same = repetitions[symbol].most;
		lengths->symbol[lengths->n] = (uint8_t) symbol;
		lengths->extra[lengths->n++] =
			symbol < 16 ? 0 : (uint8_t) (same - repetitions[symbol].least);
		count[symbol]++;
	}
	make_code(count, LENGTH_SYMBOLS, MAX_LENGTH_BITS, &lengths->code);
}

static void
put_lengths(BitWriter *writer, const Lengths *lengths)
{
	static const uint8_t order[LENGTH_SYMBOLS] = { 16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
												   11, 4,  12, 3, 13, 2, 14, 1, 15 };
	int n = LENGTH_SYMBOLS;

	while (n > 4 && lengths->code.bits[order[n - 1]] == 0)
		n--;
	put_bits(writer, (unsigned) lengths->symbols - (END_OF_BLOCK + 1), 5);
	put_bits(writer, 0, 5); /* one distance */
	put_bits(writer, (unsigned) n - 4, 4);
	for (int i = 0; i < n; i++)
	{
		put_bits(writer, lengths->code.bits[order[i]], 3);
		send_bits(writer);
	}
	for (int i = 0; i < lengths->n; i++)
	{
		int symbol = lengths->symbol[i];

		put_symbol(writer, &lengths->code, symbol);
		if (symbol >= 16)
			put_bits(writer, lengths->extra[i], repetitions[symbol].extra);
		send_bits(writer);
	}
}

/* What a block takes at most, with what may stand before and behind it. */
static size_t
block_bytes(const uint32_t *count, const Code *code, const Lengths *lengths, size_t bits)
{
	for (int i = 0; i < SYMBOLS; i++)
		bits += (size_t) count[i] * code->bits[i];
	bits += 64 + 3 * LENGTH_SYMBOLS + (size_t) lengths->n * (MAX_LENGTH_BITS + 7);
	return bits / 8 + 1 + SLACK;
}

/* ---- Blocks -------------------------------------------------------------- */

bool
deflate_block(Deflate *stream, const uint8_t *in, size_t n, bool last, DeflateBytes *out)
{
	const uint8_t *end = in + n;
	uint32_t count[SYMBOLS];
	size_t bits = count_symbols(in, end, count);
	BitWriter writer = { .bits = stream->bits, .n = stream->nbits };
	Lengths lengths;
	Code code;

	INVARIANT(n > 0 && n <= UINT32_MAX / 2);
	make_code(count, SYMBOLS, MAX_BITS, &code);
	make_lengths(&code, &lengths);
	if (!deflate_reserve(out, block_bytes(count, &code, &lengths, bits)))
		return false;
	writer.at = out->bytes + out->length;
	if (!stream->begun)
	{
		INVARIANT(in[-1] != in[0]);
		stream->adler = (uint32_t) adler32(0, NULL, 0);
		put_bits(&writer, 0x0178, 16); /* a window of 32 kB, compressed quickly */
	}
	stream->begun = true;
	stream->adler = (uint32_t) adler32(stream->adler, in, (uInt) n);
	put_bits(&writer, last, 1);
	put_bits(&writer, 2, 2);
	put_lengths(&writer, &lengths);
	put_body(&writer, &code, in, end);
	if (last)
	{
		put_bits(&writer, 0, -writer.n & 7);
		for (int shift = 24; shift >= 0; shift -= 8)
			put_bits(&writer, stream->adler >> shift & 255, 8);
		send_bits(&writer);
	}
	out->length = (size_t) (writer.at - out->bytes);
	INVARIANT(out->length <= out->capacity);
	stream->bits = writer.bits;
	stream->nbits = writer.n;
	return true;
}
