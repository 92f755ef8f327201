/* Damages tables and streams at random, and reads them; writes and reads random symbols.
 *
 *     fuzz_coder ROUNDS SEED coder.bin stream.sz …   pairs of tables and one of their streams
 *
 * Buffers have the very size that sz.h asks for, so that sanitizers see each step beyond. Whatever
 * tables are accepted must give back what was written under them. Prints how often what happened.
 */
#include <stdio.h>
#include <stdlib.h>

#include "sz.c"

enum { MOST_SYMBOLS = 1 << 13, MOST_FILES = 32 };

static uint64_t random_state;

static uint32_t random_below(uint32_t end)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % end);
}

/* Numbers at which something may turn over, and any others. */
static int32_t random_number(void)
{
    static const int32_t edges[] = {INT32_MIN, INT32_MIN + 1, -65536, -256, -1, 0, 1, 2, 3,
                                    255, 256, 65535, 65536, 1 << 24, INT32_MAX - 1, INT32_MAX};
    const uint32_t kind = random_below(4), high = random_below(1 << 16);
    switch (kind) {
    case 0: return edges[random_below(sizeof edges / sizeof *edges)];
    case 1: return (int32_t)(high << 16 | random_below(1 << 16));
    default: return (int32_t)random_below(9) - 4;
    }
}

static uint8_t *copy_of(const uint8_t *content, size_t size, size_t kept)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, content, kept < size ? kept : size);
    return copy;
}

static uint8_t *content_of(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        exit(2);
    uint8_t *content = malloc(1 << 24);
    *size = fread(content, 1, 1 << 24, file);
    fclose(file);
    return content;
}

static void damage_tables(uint8_t *tables, size_t size)
{
    for (uint32_t i = random_below(4); i > 0; i--) {
        /* The sizes are first, and matter most. */
        size_t words = size / 4 - 1, near = words < 24 ? words : 24;
        size_t at = 1 + random_below((uint32_t)(random_below(2) ? near : words) - 1);
        store32(tables + 4 * at, random_below(2) ? (uint32_t)random_number()
                                                 : load32(tables + 4 * at) ^ 1u << random_below(32));
    }
    store32(tables + size - 4, crc32(tables, size - 4));
}

static int is_small(const sz_planes *planes)
{
    return (int64_t)planes->channels * planes->height * planes->width <= MOST_SYMBOLS;
}

/* Returns planes with room for symbols, and random indexes where these are below most. */
static sz_planes new_planes(int32_t channels, int32_t height, int32_t width, int32_t most)
{
    sz_planes planes = {channels, height, width, NULL, NULL};
    size_t n = symbols_in(&planes);
    planes.symbols = malloc(4 * n);
    uint8_t *indexes = most ? malloc(n) : NULL;
    for (size_t i = 0; i < n; i++) {
        planes.symbols[i] = random_number();
        if (indexes)
            indexes[i] = (uint8_t)random_below((uint32_t)most);
    }
    planes.indexes = indexes;
    return planes;
}

static void free_planes(sz_planes *planes)
{
    free(planes->symbols);
    free((void *)planes->indexes);
}

static sz_planes new_latent(const sz_coder *coder)
{
    int32_t channels = is_context(coder) ? coder->contexts[0].channels : 1 + (int32_t)random_below(3);
    const int32_t height = 1 + (int32_t)random_below(9), width = 1 + (int32_t)random_below(9);
    return new_planes(channels, height, width,
                      is_context(coder) ? coder->contexts[0].sides : coder->rows[0].rows);
}

static sz_status read_planes(sz_reader *reader, sz_planes *planes)
{
    size_t size = sz_memory_bytes(reader->coder, planes);
    void *memory = malloc(size ? size : 1);
    if (planes->indexes) { /* as if the device had had these */
        uint32_t check = crc16(planes->indexes, symbols_in(planes));
        reader->check[0] = (uint8_t)check;
        reader->check[1] = (uint8_t)(check >> 8);
    }
    sz_status status = sz_read(reader, planes, memory, size);
    free(memory);
    return status;
}

static long reads, opened, begun, whole, written, refused;
static uint32_t streams; /* CRC-32 of all that were written, the same on every machine */

static void read_damaged(const sz_coder *coder, const uint8_t *stream, size_t size)
{
    size_t changed = size + 4 - random_below(8);
    uint8_t *copy = copy_of(stream, changed, size);
    for (size_t i = size; i < changed; i++)
        copy[i] = (uint8_t)random_below(256);
    for (uint32_t i = random_below(4); i > 0; i--)
        copy[random_below((uint32_t)changed)] = (uint8_t)random_below(256);
    if (random_below(8)) {
        memcpy(copy, "SZ\1", 3);
        copy[3] &= HAS_SHAPE;
        memcpy(copy + 4, coder->stream_id, 4);
        store32(copy + changed - CRC, crc32(copy, changed - CRC));
    }
    sz_reader reader;
    reads++;
    if (sz_begin(&reader, coder, copy, changed) == SZ_OK) {
        begun++;
        sz_planes first = {coder->channels, reader.height, reader.width, NULL, NULL};
        if (is_small(&first)) {
            first = new_planes(coder->channels, reader.height, reader.width, 0);
            sz_status status = read_planes(&reader, &first);
            free_planes(&first);
            if (status == SZ_OK && has_hyper(coder)) {
                sz_planes latent = new_latent(coder);
                status = read_planes(&reader, &latent);
                free_planes(&latent);
            }
            whole += status == SZ_OK;
        }
    }
    free(copy);
}

static void write_and_read(const sz_coder *coder)
{
    int32_t height = 1 + (int32_t)random_below(9), width = 1 + (int32_t)random_below(9);
    sz_planes first = {coder->channels, height, width, NULL, NULL}, latent = first, *y = &first;
    if (!is_small(&first))
        return;
    first = new_planes(coder->channels, height, width, 0);
    if (has_hyper(coder)) {
        latent = new_latent(coder);
        y = &latent;
    }
    size_t total = symbols_in(&first) + (has_hyper(coder) ? symbols_in(&latent) : 0);
    size_t capacity = random_below(2) ? SZ_MOST_BYTES(total) : random_below((uint32_t)(9 * total));
    size_t bytes = sz_memory_bytes(coder, &first), others = sz_memory_bytes(coder, y), size;
    bytes = others > bytes ? others : bytes;
    void *memory = malloc(bytes ? bytes : 1);
    uint8_t *stream = malloc(capacity ? capacity : 1);
    int32_t level = (int32_t)random_below((uint32_t)coder->levels);
    sz_status status = sz_encode(coder, level, y, has_hyper(coder) ? &first : NULL, memory, bytes,
                                 stream, capacity, &size);
    if (status == SZ_SPACE && capacity < SZ_MOST_BYTES(total)) {
        refused++;
    } else {
        sz_reader reader;
        sz_planes found = new_planes(first.channels, height, width, 0);
        if (status || sz_begin(&reader, coder, stream, size) || reader.level != level ||
            read_planes(&reader, &found) || memcmp(found.symbols, first.symbols, 4 * symbols_in(&first)))
            abort();
        if (has_hyper(coder)) {
            sz_planes again = latent;
            again.symbols = malloc(4 * symbols_in(&latent));
            if (read_planes(&reader, &again) ||
                memcmp(again.symbols, latent.symbols, 4 * symbols_in(&latent)))
                abort();
            free(again.symbols);
        }
        free_planes(&found);
        written++;
        streams ^= crc32(stream, size - CRC) + (uint32_t)written;
    }
    free_planes(&first);
    if (has_hyper(coder))
        free_planes(&latent);
    free(memory);
    free(stream);
}

int main(int argc, char **argv)
{
    uint8_t *files[MOST_FILES];
    size_t sizes[MOST_FILES];
    random_state = strtoull(argv[2], NULL, 10);
    for (int i = 3; i < argc; i++)
        files[i - 3] = content_of(argv[i], &sizes[i - 3]);
    for (long round = strtol(argv[1], NULL, 10); round > 0; round--) {
        uint32_t pair = 2 * random_below((uint32_t)(argc - 3) / 2);
        uint8_t *tables = copy_of(files[pair], sizes[pair], sizes[pair]);
        if (random_below(2))
            damage_tables(tables, sizes[pair]);
        sz_coder coder;
        if (sz_open(&coder, tables, sizes[pair]) == SZ_OK) {
            opened++;
            read_damaged(&coder, files[pair + 1], sizes[pair + 1]);
            write_and_read(&coder);
        }
        free(tables);
    }
    for (int i = 3; i < argc; i++)
        free(files[i - 3]);
    printf("{\"opened\": %ld, \"reads\": %ld, \"begun\": %ld, \"whole\": %ld, \"written\": %ld, "
           "\"refused\": %ld, \"streams\": %lu}\n",
           opened, reads, begun, whole, written, refused, (unsigned long)streams);
    return 0;
}
