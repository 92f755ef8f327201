/* Streams of split models in C99: integers alone, no allocation, no dependencies.
 *
 *     device: symbols ──sz_encode──► stream          edge: stream ──sz_begin, sz_read──► symbols
 *
 * `python -m splitrun coder -o DIR` writes this file, sz.c and coder.bin, the tables of one model.
 * The streams are byte for byte those of the Python in splitrun/coding, whose modules say how they
 * are made: stream (the frame), ans (the stack), factorized, hyperprior, variable_rate and
 * context/sparse (what is on it).
 *
 * Nothing here keeps state of its own: threads may share a coder. No input, be it a damaged stream
 * or a hostile coder.bin, makes it read or write outside what it was given; time is bounded by the
 * number of symbols.
 */
#ifndef SZ_H
#define SZ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    SZ_OK,
    SZ_TABLES,   /* coder.bin is damaged, not aligned to 4 bytes, or for another byte order */
    SZ_ARGUMENT, /* what is to be coded does not fit the coder */
    SZ_MEMORY,   /* the memory is less than sz_memory_bytes, or not aligned to 4 bytes */
    SZ_SPACE,    /* the stream does not fit into the buffer */
    SZ_STREAM,   /* the stream is damaged, or no stream */
    SZ_FOREIGN,  /* the stream is of another model */
    SZ_DESYNC    /* the scale indexes are not those that the device had */
} sz_status;

/* Returns what a status says, in English. */
const char *sz_message(sz_status status);

typedef enum {
    SZ_FACTORIZED,
    SZ_CONTEXT,
    SZ_HYPERPRIOR,
    SZ_HYPERPRIOR_CONTEXT,
    SZ_VARIABLE_RATE,
    SZ_VARIABLE_RATE_CONTEXT
} sz_kind;

/* Rows of cumulative counts, see FactorizedTables in splitrun/coding/tables.py. */
typedef struct {
    int32_t rows, width, precision;
    const int32_t *length; /* (rows) entries in use: ordinary symbols + 2 */
    const int32_t *offset; /* (rows) smallest ordinary symbol */
    const int32_t *cdf;    /* (rows, width) rising from 0 to 2 to the power of precision */
} sz_rows;

/* What symbols are predicted with, see SparseTables in splitrun/coding/context/sparse.py. */
typedef struct {
    int32_t passes, channels, stride, sides, spread_count, fraction_count, limit;
    const int32_t *weights;      /* (passes, 4, 2, stride), of which channels are used */
    const int32_t *side;         /* (sides) */
    const int32_t *side_weights; /* (passes, stride) */
    const int32_t *spreads, *fractions;
    sz_rows rows;
} sz_context;

/* A model's coder; sz_open fills it in, with pointers into the content of coder.bin. */
typedef struct {
    sz_kind kind;
    uint8_t stream_id[4];
    int32_t channels, height, width; /* of what is decoded first; height and width where not sent */
    int32_t levels;                  /* levels of rate; 1 where it is fixed */
    sz_rows rows[2];                 /* of the latent, and of its hyper-latent; or contexts: */
    sz_context contexts[2];
} sz_coder;

/* Symbols of one image: of its latent y, or of its hyper-latent z. */
typedef struct {
    int32_t channels, height, width;
    int32_t *symbols;       /* (channels, height, width), any values; sz_encode only reads them */
    const uint8_t *indexes; /* the scale index of each symbol of y; NULL where there is no z */
} sz_planes;

/* Checks the content of coder.bin, which has to stay where it is, aligned to 4 bytes. */
sz_status sz_open(sz_coder *coder, const void *content, size_t size);

/* Returns how many bytes of memory coding these planes takes; of y and z, the larger is needed. */
size_t sz_memory_bytes(const sz_coder *coder, const sz_planes *planes);

/* Largest stream of so many symbols, of y and z together. A smaller buffer will nearly always do. */
#define SZ_MOST_BYTES(symbols) (32 + 9 * (size_t)(symbols))

/* Writes the stream of one image.
 *
 * level   level of rate, 0 where it is fixed; symbols of others are rounded with its gains
 * y       the latent
 * z       the hyper-latent; NULL where there is none
 * memory  sz_memory_bytes of it, aligned to 4 bytes; NULL where that is 0
 * size    becomes the number of bytes of the stream
 */
sz_status sz_encode(const sz_coder *coder, int32_t level, const sz_planes *y, const sz_planes *z,
                    void *memory, size_t memory_bytes, uint8_t *stream, size_t capacity,
                    size_t *size);

/* A payload's stack while it is written or read; words are little-endian. */
typedef struct {
    uint64_t state;
    uint8_t *bytes;
    size_t size, capacity;
} sz_stack;

/* A stream while it is read. */
typedef struct {
    const sz_coder *coder;
    sz_stack stack;
    uint8_t check[2];
    int32_t level, height, width; /* height and width of what is read first */
    int32_t left;                 /* planes that are still to be read */
} sz_reader;

/* Checks a stream's frame; the stream has to stay until all is read. */
sz_status sz_begin(sz_reader *reader, const sz_coder *coder, const uint8_t *stream, size_t size);

/* Reads the next planes: z first where there is one, then y.
 *
 * planes  their shape, and room for the symbols: the first have the coder's channels and the
 *         reader's height and width. y's has its scale indexes too, which the hyper-decoder
 *         computes from z.
 */
sz_status sz_read(sz_reader *reader, const sz_planes *planes, void *memory, size_t memory_bytes);

/* The frame alone, for payloads that other libraries make, such as JPEG files. */

/* Frames the payload_size bytes that lie at stream + 8, or at stream + 12 where a shape is sent,
 * that is where height is not 0. Returns the size of the stream; capacity has 16 bytes more than
 * the payload. */
size_t sz_write_frame(uint8_t *stream, size_t payload_size, const uint8_t stream_id[4],
                      int32_t height, int32_t width);

/* Takes a stream apart; height and width become 0 where no shape was sent. */
sz_status sz_read_frame(const uint8_t *stream, size_t size, const uint8_t stream_id[4],
                        const uint8_t **payload, size_t *payload_size, int32_t *height,
                        int32_t *width);

/* The stack alone, which splitrun/coding/c_ans.py is written on. Rows have a precision of up to
 * 24 bits, counts say how many of the slots each row codes, one row after the other. */
sz_status sz_push(sz_stack *stack, const sz_rows *rows, const int32_t *slots,
                  const int64_t *counts);
void sz_pop(sz_stack *stack, const sz_rows *rows, int32_t *slots, const int64_t *counts);
sz_status sz_push_bits(sz_stack *stack, const int32_t *values, const int32_t *widths, size_t n);
void sz_pop_bits(sz_stack *stack, int32_t *values, const int32_t *widths, size_t n);

#ifdef __cplusplus
}
#endif
#endif
