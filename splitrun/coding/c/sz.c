/* See sz.h. */
#include "sz.h"

#include <string.h>

/* Integers. Conversions to int32_t wrap around and >> of negative numbers rounds down, as all
 * compilers in use have it and C23 demands of the first. */

static uint32_t load32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static void store32(uint8_t *bytes, uint32_t word)
{
    bytes[0] = (uint8_t)word;
    bytes[1] = (uint8_t)(word >> 8);
    bytes[2] = (uint8_t)(word >> 16);
    bytes[3] = (uint8_t)(word >> 24);
}

static int32_t clipped(int32_t value, int32_t limit)
{
    return value < -limit ? -limit : value > limit ? limit : value;
}

static int is_aligned(const void *memory)
{
    return (uintptr_t)memory % 4 == 0;
}

/* The stack: see plain_ans.py. */

enum { CODER_BITS = 24, SPILL = 64 - CODER_BITS };
static const uint64_t TOTAL = (uint64_t)1 << CODER_BITS;
static const uint64_t WORD = (uint64_t)1 << 32;

/* How many symbols each row codes: counts, or each. */
typedef struct {
    const sz_rows *rows;
    const int64_t *counts;
    int64_t each;
} runs;

static int64_t run_of(const runs *of, int32_t row)
{
    return of->counts ? of->counts[row] : of->each;
}

static const int32_t *cdf_of(const sz_rows *rows, int32_t row)
{
    return rows->cdf + (size_t)row * (size_t)rows->width;
}

static size_t total(const runs *of)
{
    size_t n = 0;
    for (int32_t row = 0; row < of->rows->rows; row++)
        n += (size_t)run_of(of, row);
    return n;
}

/* Pushes a run of symbols, as slots, or, where they are not the slots themselves, less offset. */
static int push_run(sz_stack *stack, const int32_t *cdf, int32_t shift, int32_t offset,
                    uint32_t escape, const int32_t *symbols, int64_t n)
{
    uint64_t state = stack->state;
    size_t size = stack->size;
    for (int64_t i = n; i-- > 0;) {
        uint32_t slot = (uint32_t)symbols[i] - (uint32_t)offset;
        if (slot > escape)
            slot = escape;
        uint64_t start = (uint64_t)cdf[slot] << shift;
        uint64_t frequency = (uint64_t)(cdf[slot + 1] - cdf[slot]) << shift;
        if (state >> SPILL >= frequency) {
            if (stack->capacity - size < 4)
                return 0;
            store32(stack->bytes + size, (uint32_t)state);
            size += 4;
            state >>= 32;
        }
        state += state / frequency * (TOTAL - frequency) + start;
    }
    stack->state = state;
    stack->size = size;
    return 1;
}

static uint64_t refilled(sz_stack *stack, uint64_t state)
{
    if (state < WORD && stack->size) {
        stack->size -= 4;
        state = state << 32 | load32(stack->bytes + stack->size);
    }
    return state;
}

/* Pops a run of symbols; returns whether there are escape slots among them. */
static int pop_run(sz_stack *stack, const int32_t *cdf, int32_t shift, int32_t offset,
                   int32_t escape, int32_t *symbols, int64_t n)
{
    uint64_t state = stack->state;
    int escaped = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t below = state & (TOTAL - 1);
        int32_t target = (int32_t)(below >> shift), slot = 0;
        for (int32_t slots = escape + 1; slots > 1;) {
            int32_t half = slots / 2;
            slot += cdf[slot + half] <= target ? half : 0;
            slots -= half;
        }
        uint64_t start = (uint64_t)cdf[slot] << shift;
        uint64_t frequency = (uint64_t)(cdf[slot + 1] - cdf[slot]) << shift;
        state = refilled(stack, (state >> CODER_BITS) * frequency + below - start);
        escaped |= slot == escape;
        symbols[i] = (int32_t)((uint32_t)slot + (uint32_t)offset);
    }
    stack->state = state;
    return escaped;
}

static int push_bits(sz_stack *stack, uint32_t value, int32_t width)
{
    int32_t below = CODER_BITS - width;
    uint64_t frequency = (uint64_t)1 << below;
    if (stack->state >> SPILL >= frequency) {
        if (stack->capacity - stack->size < 4)
            return 0;
        store32(stack->bytes + stack->size, (uint32_t)stack->state);
        stack->size += 4;
        stack->state >>= 32;
    }
    stack->state +=
        (stack->state >> below) * (TOTAL - frequency) + ((uint64_t)value << below);
    return 1;
}

static uint32_t pop_bits(sz_stack *stack, int32_t width)
{
    int32_t below = CODER_BITS - width;
    uint64_t state = stack->state;
    uint32_t value = (uint32_t)((state & (TOTAL - 1)) >> below);
    state = (state >> CODER_BITS << below) + (state & (((uint64_t)1 << below) - 1));
    stack->state = refilled(stack, state);
    return value;
}

static void open_payload(sz_stack *stack, const uint8_t *payload, size_t size)
{
    /* Nothing is written while a stream is read. */
    stack->bytes = (uint8_t *)payload;
    stack->size = stack->capacity = size / 4 * 4;
    stack->state = 0;
    for (size_t end = size; end > stack->size; end--)
        stack->state = stack->state << 8 | payload[end - 1];
    while (stack->state < WORD && stack->size)
        stack->state = refilled(stack, stack->state);
}

/* Writes the state behind the words; the payload's last zero bytes are not sent. */
static int close_payload(sz_stack *stack)
{
    for (; stack->state; stack->state >>= 8) {
        if (stack->size == stack->capacity)
            return 0;
        stack->bytes[stack->size++] = (uint8_t)stack->state;
    }
    while (stack->size && !stack->bytes[stack->size - 1])
        stack->size--;
    return 1;
}

sz_status sz_push(sz_stack *stack, const sz_rows *rows, const int32_t *slots, const int64_t *counts)
{
    runs of = {rows, counts, 0};
    size_t end = total(&of);
    for (int32_t row = rows->rows; row-- > 0;) {
        uint32_t last = (uint32_t)rows->length[row] - 2;
        end -= (size_t)counts[row];
        if (!push_run(stack, cdf_of(rows, row), CODER_BITS - rows->precision, 0, last, slots + end,
                      counts[row]))
            return SZ_SPACE;
    }
    return SZ_OK;
}

void sz_pop(sz_stack *stack, const sz_rows *rows, int32_t *slots, const int64_t *counts)
{
    for (int32_t row = 0; row < rows->rows; row++) {
        pop_run(stack, cdf_of(rows, row), CODER_BITS - rows->precision, 0, rows->length[row] - 2,
                slots, counts[row]);
        slots += counts[row];
    }
}

sz_status sz_push_bits(sz_stack *stack, const int32_t *values, const int32_t *widths, size_t n)
{
    while (n-- > 0)
        if (!push_bits(stack, (uint32_t)values[n], widths[n]))
            return SZ_SPACE;
    return SZ_OK;
}

void sz_pop_bits(sz_stack *stack, int32_t *values, const int32_t *widths, size_t n)
{
    for (size_t i = 0; i < n; i++)
        values[i] = (int32_t)pop_bits(stack, widths[i]);
}

/* Blocks of symbols under rows, see ans.py: their slots; below these, for those that are escaped,
 * the classes of their magnitudes, then the low bits, then the high bits. */

enum { CLASSES_OF_ESCAPES, LOW_BITS_OF_ESCAPES, HIGH_BITS_OF_ESCAPES, FIELDS };
enum { CLASSES = 35, LOW_BITS = 16 };

static const int32_t ESCAPE_CDF[CLASSES + 1] = {
    0, 10338, 17219, 22380, 26509, 29949, 32898, 35478, 37771, 39835, 41711, 43431, 45019, 46493,
    47869, 49159, 50373, 51519, 52605, 53637, 54619, 55557, 56454, 57314, 58139, 58932, 59696,
    60433, 61144, 61832, 62497, 63142, 63767, 64374, 64963, 65536,
};

static int32_t bits_below_leading(int32_t class)
{
    return class > 0 ? class - 1 : 0;
}

static int push_field(sz_stack *stack, int field, int64_t beyond)
{
    uint64_t magnitude = beyond < 0 ? (uint64_t)(-2 * beyond - 1) : (uint64_t)(2 * beyond);
    int32_t class = 0;
    while (magnitude >> class)
        class++;
    int32_t rest = bits_below_leading(class), low = rest < LOW_BITS ? rest : LOW_BITS;
    if (field == CLASSES_OF_ESCAPES)
        return push_run(stack, ESCAPE_CDF, 8, 0, CLASSES - 1, &class, 1);
    int32_t width = field == LOW_BITS_OF_ESCAPES ? low : rest - low;
    uint64_t bits = field == LOW_BITS_OF_ESCAPES ? magnitude : magnitude >> LOW_BITS;
    return !width || push_bits(stack, (uint32_t)bits & (((uint32_t)1 << width) - 1), width);
}

/* Pops a field of an escaped symbol. What is known of it meanwhile, its class and then also its low
 * bits, is a number below 2 to the power of 22. Returns 0 where the symbol is beyond 32 bits. */
static int pop_field(sz_stack *stack, int field, uint32_t *known, int32_t first, int64_t end,
                     int32_t *symbol)
{
    if (field == CLASSES_OF_ESCAPES) {
        int32_t class;
        pop_run(stack, ESCAPE_CDF, 8, 0, CLASSES - 1, &class, 1);
        *known = (uint32_t)class;
        return 1;
    }
    int32_t class = (int32_t)(*known & 63);
    int32_t rest = bits_below_leading(class), low = rest < LOW_BITS ? rest : LOW_BITS;
    if (field == LOW_BITS_OF_ESCAPES) {
        *known |= low ? pop_bits(stack, low) << 6 : 0;
        return 1;
    }
    uint64_t magnitude = (class ? (uint64_t)1 << rest : 0) | *known >> 6;
    if (rest > low)
        magnitude |= (uint64_t)pop_bits(stack, rest - low) << LOW_BITS;
    int64_t half = (int64_t)(magnitude / 2);
    int64_t value = magnitude & 1 ? first - half - 1 : end + half;
    *symbol = (int32_t)value;
    return value >= INT32_MIN && value <= INT32_MAX;
}

/* Says whether any of a run's symbols is not one of its row's ordinary ones. */
static int is_outside(const int32_t *symbols, int64_t n, uint32_t first, uint32_t ordinary)
{
    uint32_t outside = 0;
    for (int64_t i = 0; i < n; i++)
        outside |= (uint32_t)symbols[i] - first >= ordinary;
    return outside != 0;
}

static sz_status push_block(sz_stack *stack, const runs *of, const int32_t *symbols)
{
    const sz_rows *rows = of->rows;
    const size_t n = total(of);
    const int32_t shift = CODER_BITS - rows->precision;
    int escaped = 0;
    size_t at = 0;
    for (int32_t row = 0; row < rows->rows; row++) {
        escaped |= is_outside(symbols + at, run_of(of, row), (uint32_t)rows->offset[row],
                              (uint32_t)rows->length[row] - 2);
        at += (size_t)run_of(of, row);
    }
    for (int field = FIELDS; escaped && field-- > 0;) {
        at = n;
        for (int32_t row = rows->rows; row-- > 0;) {
            int64_t first = rows->offset[row], end = first + rows->length[row] - 2;
            for (int64_t i = run_of(of, row); i > 0; i--) {
                int64_t symbol = symbols[--at];
                if (symbol >= first && symbol < end)
                    continue;
                if (!push_field(stack, field, symbol - (symbol < first ? first : end)))
                    return SZ_SPACE;
            }
        }
    }
    at = n;
    for (int32_t row = rows->rows; row-- > 0;) {
        at -= (size_t)run_of(of, row);
        if (!push_run(stack, cdf_of(rows, row), shift, rows->offset[row],
                      (uint32_t)rows->length[row] - 2, symbols + at, run_of(of, row)))
            return SZ_SPACE;
    }
    return SZ_OK;
}

static sz_status pop_block(sz_stack *stack, const runs *of, int32_t *symbols)
{
    const sz_rows *rows = of->rows;
    const int32_t shift = CODER_BITS - rows->precision;
    int escaped = 0, fits = 1;
    size_t at = 0;
    for (int32_t row = 0; row < rows->rows; row++) {
        escaped |= pop_run(stack, cdf_of(rows, row), shift, rows->offset[row],
                           rows->length[row] - 2, symbols + at, run_of(of, row));
        at += (size_t)run_of(of, row);
    }
    for (int field = 0; escaped && field < FIELDS; field++) {
        at = 0;
        for (int32_t row = 0; row < rows->rows; row++) {
            uint32_t first = (uint32_t)rows->offset[row];
            uint32_t ordinary = (uint32_t)rows->length[row] - 2;
            for (int64_t i = run_of(of, row); i > 0; i--, at++) {
                /* Until it is whole, what is known of an escaped symbol lies above its row. */
                uint32_t known = (uint32_t)symbols[at] - first;
                if (known < ordinary)
                    continue;
                known -= ordinary;
                int32_t symbol = 0;
                fits &= pop_field(stack, field, &known, (int32_t)first,
                                  (int64_t)rows->offset[row] + ordinary, &symbol);
                symbols[at] = field == HIGH_BITS_OF_ESCAPES ? symbol
                                                            : (int32_t)(first + ordinary + known);
            }
        }
    }
    return fits ? SZ_OK : SZ_STREAM;
}

/* Symbols under the rows that indexes name, see ConditionalModels in ans.py: row after row. */

enum { MAX_ROWS = 256 };

static void count(const uint8_t *indexes, size_t n, int64_t counts[MAX_ROWS])
{
    memset(counts, 0, MAX_ROWS * sizeof *counts);
    for (size_t i = 0; i < n; i++)
        counts[indexes[i]]++;
}

static void begins(const int64_t counts[MAX_ROWS], size_t next[MAX_ROWS])
{
    size_t at = 0;
    for (int row = 0; row < MAX_ROWS; row++) {
        next[row] = at;
        at += (size_t)counts[row];
    }
}

/* Pushes symbols; sorted has room for n. */
static sz_status push_by_row(sz_stack *stack, const sz_rows *rows, const int32_t *symbols,
                             const uint8_t *indexes, size_t n, int32_t *sorted)
{
    int64_t counts[MAX_ROWS];
    size_t next[MAX_ROWS];
    count(indexes, n, counts);
    begins(counts, next);
    for (size_t i = 0; i < n; i++)
        sorted[next[indexes[i]]++] = symbols[i];
    runs of = {rows, counts, 0};
    return push_block(stack, &of, sorted);
}

/* Pops symbols into sorted; that of place i is then at next[indexes[i]]++. */
static sz_status pop_by_row(sz_stack *stack, const sz_rows *rows, const uint8_t *indexes, size_t n,
                            int32_t *sorted, size_t next[MAX_ROWS])
{
    int64_t counts[MAX_ROWS];
    count(indexes, n, counts);
    begins(counts, next);
    runs of = {rows, counts, 0};
    return pop_block(stack, &of, sorted);
}

/* Context coding, see context/sparse.py. */

enum { ONE = 256, GROUPS = 3 };

/* Places of the planes that are coded together. */
typedef struct {
    int32_t number, step, distance, row, column;
    int64_t places; /* of all channels */
} pass;

/* What context coding keeps in the memory that it is given. */
typedef struct {
    int32_t *known;  /* (channels, height, width) distance * 65536 + symbol, both limited */
    int32_t *zeros;  /* (width) the row outside */
    int32_t *values; /* (places of a pass) means, or symbols less these */
    int32_t *sorted; /* (places of a pass) */
    uint8_t *rows;   /* (places of a pass) */
} workspace;

static pass pass_of(const sz_context *context, const sz_planes *planes, int32_t number)
{
    static const int32_t odd[3][2] = {{1, 1}, {0, 1}, {1, 0}};
    int32_t levels = (context->passes - 1) / 3;
    pass at = {number, (int32_t)1 << levels, 0, 0, 0, 0};
    if (number) {
        at.step >>= (number - 1) / 3;
        at.distance = at.step / 2;
        at.row = odd[(number - 1) % 3][0] * at.distance;
        at.column = odd[(number - 1) % 3][1] * at.distance;
    }
    if (at.row < planes->height && at.column < planes->width)
        at.places = (int64_t)planes->channels * ((planes->height - 1 - at.row) / at.step + 1) *
                    ((planes->width - 1 - at.column) / at.step + 1);
    return at;
}

static size_t symbols_in(const sz_planes *planes)
{
    return (size_t)planes->channels * (size_t)planes->height * (size_t)planes->width;
}

static size_t context_bytes(const sz_context *context, const sz_planes *planes)
{
    int64_t most = 0;
    for (int32_t number = 0; number < context->passes; number++) {
        pass at = pass_of(context, planes, number);
        most = at.places > most ? at.places : most;
    }
    return 4 * (symbols_in(planes) + (size_t)planes->width) + 9 * (size_t)most;
}

static workspace laid_out(const sz_context *context, const sz_planes *planes, void *memory)
{
    size_t n = symbols_in(planes), width = (size_t)planes->width;
    size_t most = (context_bytes(context, planes) - 4 * (n + width)) / 9;
    workspace work = {memory, NULL, NULL, NULL, NULL};
    work.zeros = work.known + n;
    work.values = work.zeros + width;
    work.sorted = work.values + most;
    work.rows = (uint8_t *)(work.sorted + most);
    memset(work.zeros, 0, 4 * width);
    return work;
}

static int32_t not_above(const int32_t *thresholds, int32_t n, int32_t value)
{
    int32_t found = 0;
    while (found < n && thresholds[found] <= value)
        found++;
    return found;
}

/* Sums of what is known of a place's neighbours: beside it, above and below it, at its corners.
 * Those outside count as 0. */

static inline int32_t beside(const int32_t *level, int32_t x, int32_t d, int32_t width)
{
    return (x >= d ? level[x - d] : 0) + (width - x > d ? level[x + d] : 0);
}

static inline int32_t upright(const int32_t *above, const int32_t *below, int32_t x)
{
    return above[x] + below[x];
}

static inline int32_t corners(const int32_t *above, const int32_t *below, int32_t x, int32_t d,
                              int32_t width)
{
    return beside(above, x, d, width) + beside(below, x, d, width);
}

/* Computes means and spreads of every step-th place of one row of a plane. */
static inline void predict_row(const int32_t *above, const int32_t *level, const int32_t *below,
                               const pass *at, int32_t width, int32_t weights[1 + GROUPS][2],
                               int odd_row, int odd_column, int32_t *means, int32_t *spreads)
{
    const int groups = odd_row ? (odd_column ? 1 : 3) : 2;
    const int32_t d = at->distance;
    for (int32_t x = at->column; x < width; x += at->step) {
        int32_t mean = weights[0][0], spread = weights[0][1], sums[GROUPS];
        if (odd_row && odd_column) {
            sums[0] = corners(above, below, x, d, width);
        } else if (odd_row) {
            sums[0] = upright(above, below, x);
            sums[1] = beside(level, x, d, width);
            sums[2] = corners(above, below, x, d, width);
        } else {
            sums[0] = beside(level, x, d, width);
            sums[1] = upright(above, below, x);
        }
        for (int group = 0; group < groups; group++) {
            /* Symbols sum up to 16 bits and a sign, above which are the distances. */
            const int32_t symbols = (int16_t)(uint16_t)sums[group];
            const int32_t distances = (int32_t)((uint32_t)(sums[group] - symbols) >> 16);
            mean += weights[1 + group][0] * symbols;
            spread += weights[1 + group][1] * distances;
        }
        *means++ = mean;
        *spreads++ = spread;
    }
}

/* Computes means, rounded, and the row of each place of a pass, of which there is one at least. */
static void predict(const sz_context *context, const sz_planes *planes, const workspace *work,
                    const pass *at)
{
    const int32_t width = planes->width, d = at->distance;
    int32_t *means = work->values, *spreads = work->sorted; /* nothing is sorted yet */
    uint8_t *rows = work->rows, of_fraction[ONE];
    for (int32_t fraction = 0; fraction < ONE; fraction++)
        of_fraction[fraction] =
            (uint8_t)not_above(context->fractions, context->fraction_count, fraction);
    for (int32_t channel = 0; channel < planes->channels; channel++) {
        int32_t weights[1 + GROUPS][2];
        for (int32_t row = 0; row < 2 * (1 + GROUPS); row++)
            weights[row / 2][row % 2] =
                context->weights[(size_t)(at->number * 2 * (1 + GROUPS) + row) *
                                     (size_t)context->stride +
                                 (size_t)channel];
        const int32_t side_weight =
            context->side_weights[(size_t)at->number * (size_t)context->stride + (size_t)channel];
        for (int32_t y = at->row; y < planes->height; y += at->step) {
            const size_t first =
                ((size_t)channel * (size_t)planes->height + (size_t)y) * (size_t)width;
            const int32_t *level = work->known + first;
            const int32_t *above = y >= d ? level - (size_t)d * (size_t)width : work->zeros;
            const int32_t *below =
                planes->height - y > d ? level + (size_t)d * (size_t)width : work->zeros;
            const int32_t n = (width - 1 - at->column) / at->step + 1;
            if (!at->number)
                for (int32_t i = 0; i < n; i++) {
                    means[i] = weights[0][0];
                    spreads[i] = weights[0][1];
                }
            else if (at->row && at->column)
                predict_row(above, level, below, at, width, weights, 1, 1, means, spreads);
            else if (at->row)
                predict_row(above, level, below, at, width, weights, 1, 0, means, spreads);
            else
                predict_row(above, level, below, at, width, weights, 0, 1, means, spreads);
            if (context->sides) {
                const uint8_t *indexes = planes->indexes + first + (size_t)at->column;
                for (int32_t i = 0; i < n; i++)
                    spreads[i] +=
                        (side_weight * context->side[indexes[(size_t)i * (size_t)at->step]]) >> 8;
            }
            for (int32_t i = 0; i < n; i++) {
                const int32_t mean = means[i] + ONE / 2;
                const int32_t class =
                    not_above(context->spreads, context->spread_count, spreads[i]);
                rows[i] = (uint8_t)(class * (context->fraction_count + 1) +
                                    of_fraction[mean & (ONE - 1)]);
                means[i] = mean >> 8;
            }
            means += n, spreads += n, rows += n;
        }
    }
}

/* Turns means into symbols less these, and keeps what is known of the places of a pass. Where next
 * says where in sorted those less the means begin for each row, the symbols are made of them. */
static void put(const sz_context *context, const sz_planes *planes, const workspace *work,
                const pass *at, size_t *next)
{
    size_t i = 0;
    for (int32_t channel = 0; channel < planes->channels; channel++)
        for (int32_t y = at->row; y < planes->height; y += at->step) {
            const size_t first = ((size_t)channel * (size_t)planes->height + (size_t)y) *
                                 (size_t)planes->width;
            for (int32_t x = at->column; x < planes->width; x += at->step, i++) {
                int32_t *symbol = planes->symbols + first + (size_t)x;
                const uint32_t mean = (uint32_t)work->values[i];
                if (next)
                    *symbol = (int32_t)((uint32_t)work->sorted[next[work->rows[i]]++] + mean);
                work->values[i] = (int32_t)((uint32_t)*symbol - mean);
                const int32_t off = clipped(work->values[i], context->limit);
                work->known[first + (size_t)x] =
                    (off < 0 ? -off : off) * 65536 + clipped(*symbol, context->limit);
            }
        }
}

static sz_status push_context(sz_stack *stack, const sz_context *context, const sz_planes *planes,
                              void *memory)
{
    const workspace work = laid_out(context, planes, memory);
    for (int32_t number = 0; number < context->passes; number++) {
        const pass at = pass_of(context, planes, number);
        if (at.places) {
            predict(context, planes, &work, &at);
            put(context, planes, &work, &at, NULL);
        }
    }
    /* What is read first is written last: all is predicted once more, which saves memory. */
    for (int32_t number = context->passes; number-- > 0;) {
        const pass at = pass_of(context, planes, number);
        if (!at.places)
            continue;
        predict(context, planes, &work, &at);
        put(context, planes, &work, &at, NULL);
        if (push_by_row(stack, &context->rows, work.values, work.rows, (size_t)at.places,
                        work.sorted))
            return SZ_SPACE;
    }
    return SZ_OK;
}

static sz_status pop_context(sz_stack *stack, const sz_context *context, const sz_planes *planes,
                             void *memory)
{
    const workspace work = laid_out(context, planes, memory);
    for (int32_t number = 0; number < context->passes; number++) {
        const pass at = pass_of(context, planes, number);
        size_t next[MAX_ROWS];
        if (!at.places)
            continue;
        predict(context, planes, &work, &at);
        if (pop_by_row(stack, &context->rows, work.rows, (size_t)at.places, work.sorted, next))
            return SZ_STREAM;
        put(context, planes, &work, &at, next);
    }
    return SZ_OK;
}

/* Frames: see stream.py. */

enum { VERSION = 1, HAS_SHAPE = 1, HEADER = 8, SHAPE = 4, CRC = 4, CHECK = 2 };
enum { MAX_SIDE = 65535, MAX_SYMBOLS = 1 << 24, MAX_CHANNELS = 1 << 16 };

static uint32_t crc32(const uint8_t *bytes, size_t size)
{
    uint32_t of_four_bits[16], crc = 0xffffffff;
    for (uint32_t i = 0; i < 16; i++) {
        of_four_bits[i] = i;
        for (int bit = 0; bit < 4; bit++)
            of_four_bits[i] = of_four_bits[i] >> 1 ^ (of_four_bits[i] & 1 ? 0xedb88320 : 0);
    }
    for (size_t i = 0; i < size; i++) {
        crc = crc >> 4 ^ of_four_bits[(crc ^ bytes[i]) & 15];
        crc = crc >> 4 ^ of_four_bits[(crc ^ (uint32_t)bytes[i] >> 4) & 15];
    }
    return ~crc;
}

/* Returns the CRC-16 of scale indexes, see index_check in hyperprior.py. */
static uint32_t crc16(const uint8_t *bytes, size_t size)
{
    uint32_t of_four_bits[16], crc = 0xffff;
    for (uint32_t i = 0; i < 16; i++) {
        of_four_bits[i] = i << 12;
        for (int bit = 0; bit < 4; bit++)
            of_four_bits[i] = of_four_bits[i] << 1 ^ (of_four_bits[i] & 0x8000 ? 0x11021 : 0);
    }
    for (size_t i = 0; i < size; i++) {
        crc = (crc << 4 ^ of_four_bits[(crc >> 12 ^ bytes[i] >> 4) & 15]) & 0xffff;
        crc = (crc << 4 ^ of_four_bits[(crc >> 12 ^ bytes[i]) & 15]) & 0xffff;
    }
    return crc;
}

static size_t header_size(int32_t height)
{
    return height ? HEADER + SHAPE : HEADER;
}

size_t sz_write_frame(uint8_t *stream, size_t payload_size, const uint8_t stream_id[4],
                      int32_t height, int32_t width)
{
    size_t end = header_size(height) + payload_size;
    memcpy(stream, "SZ", 2);
    stream[2] = VERSION;
    stream[3] = height ? HAS_SHAPE : 0;
    memcpy(stream + 4, stream_id, 4);
    if (height)
        store32(stream + HEADER, (uint32_t)height | (uint32_t)width << 16);
    store32(stream + end, crc32(stream, end));
    return end + CRC;
}

sz_status sz_read_frame(const uint8_t *stream, size_t size, const uint8_t stream_id[4],
                        const uint8_t **payload, size_t *payload_size, int32_t *height,
                        int32_t *width)
{
    if (size < HEADER + CRC || memcmp(stream, "SZ", 2))
        return SZ_STREAM;
    size -= CRC;
    if (load32(stream + size) != crc32(stream, size) || stream[2] != VERSION)
        return SZ_STREAM;
    if (stream[3] & ~HAS_SHAPE)
        return SZ_STREAM;
    *height = *width = 0;
    if (stream[3]) {
        if (size < HEADER + SHAPE)
            return SZ_STREAM;
        *height = stream[HEADER] | stream[HEADER + 1] << 8;
        *width = stream[HEADER + 2] | stream[HEADER + 3] << 8;
        if (!*height || !*width)
            return SZ_STREAM;
    }
    if (memcmp(stream + 4, stream_id, 4))
        return SZ_FOREIGN;
    *payload = stream + HEADER + (stream[3] ? SHAPE : 0);
    *payload_size = size - (size_t)(*payload - stream);
    return SZ_OK;
}

/* Coders. */

static int is_context(const sz_coder *coder)
{
    return coder->kind == SZ_CONTEXT || coder->kind == SZ_HYPERPRIOR_CONTEXT ||
           coder->kind == SZ_VARIABLE_RATE_CONTEXT;
}

static int has_hyper(const sz_coder *coder)
{
    return coder->kind == SZ_HYPERPRIOR || coder->kind == SZ_HYPERPRIOR_CONTEXT;
}

static int is_variable(const sz_coder *coder)
{
    return coder->kind == SZ_VARIABLE_RATE || coder->kind == SZ_VARIABLE_RATE_CONTEXT;
}

/* Planes come with scale indexes where they are a latent's with a hyper-latent. */
static int is_latent(const sz_coder *coder, const sz_planes *planes)
{
    return has_hyper(coder) && planes->indexes;
}

static int is_possible(int64_t channels, int64_t height, int64_t width)
{
    return channels > 0 && height > 0 && width > 0 && height <= MAX_SIDE && width <= MAX_SIDE &&
           channels <= MAX_SYMBOLS && channels * height * width <= MAX_SYMBOLS;
}

static int fits(const sz_coder *coder, const sz_planes *planes)
{
    int32_t channels = coder->channels, indexes = 0;
    if (is_latent(coder, planes)) {
        channels = is_context(coder) ? coder->contexts[0].channels : planes->channels;
        indexes = is_context(coder) ? coder->contexts[0].sides : coder->rows[0].rows;
    }
    if (!planes->symbols || planes->channels != channels ||
        !is_possible(channels, planes->height, planes->width))
        return 0;
    for (size_t i = 0, n = indexes ? symbols_in(planes) : 0; i < n; i++)
        if (planes->indexes[i] >= indexes)
            return 0;
    return 1;
}

size_t sz_memory_bytes(const sz_coder *coder, const sz_planes *planes)
{
    if (!is_possible(planes->channels, planes->height, planes->width))
        return 0;
    if (is_context(coder))
        return context_bytes(&coder->contexts[has_hyper(coder) && !planes->indexes], planes);
    return is_latent(coder, planes) ? 4 * symbols_in(planes) : 0;
}

/* Codes planes that fit: pushes them, or pops them. */
static sz_status code(const sz_coder *coder, int32_t level, const sz_planes *planes, void *memory,
                      sz_stack *stack, int pop)
{
    const int which = has_hyper(coder) && !planes->indexes;
    const size_t n = symbols_in(planes), skipped = (size_t)level * (size_t)coder->channels;
    if (is_context(coder)) {
        sz_context context = coder->contexts[which];
        context.weights += skipped;
        context.side_weights += skipped;
        return (pop ? pop_context : push_context)(stack, &context, planes, memory);
    }
    sz_rows rows = coder->rows[which];
    if (is_latent(coder, planes)) {
        int32_t *sorted = memory;
        size_t next[MAX_ROWS];
        if (!pop)
            return push_by_row(stack, &rows, planes->symbols, planes->indexes, n, sorted);
        if (pop_by_row(stack, &rows, planes->indexes, n, sorted, next))
            return SZ_STREAM;
        for (size_t i = 0; i < n; i++)
            planes->symbols[i] = sorted[next[planes->indexes[i]]++];
        return SZ_OK;
    }
    rows.rows = coder->channels;
    rows.length += skipped;
    rows.offset += skipped;
    rows.cdf += skipped * (size_t)rows.width;
    const runs of = {&rows, NULL, (int64_t)planes->height * planes->width};
    return pop ? pop_block(stack, &of, planes->symbols) : push_block(stack, &of, planes->symbols);
}

sz_status sz_encode(const sz_coder *coder, int32_t level, const sz_planes *y, const sz_planes *z,
                    void *memory, size_t memory_bytes, uint8_t *stream, size_t capacity,
                    size_t *size)
{
    const sz_planes *first = z ? z : y;
    if (!z != !has_hyper(coder) || !z != !y->indexes || (z && z->indexes))
        return SZ_ARGUMENT;
    if (level < 0 || level >= coder->levels || !fits(coder, y) || (z && !fits(coder, z)))
        return SZ_ARGUMENT;
    if (memory_bytes < sz_memory_bytes(coder, y) || !is_aligned(memory) ||
        (z && memory_bytes < sz_memory_bytes(coder, z)))
        return SZ_MEMORY;
    const int fixed = first->height == coder->height && first->width == coder->width;
    const int32_t height = fixed ? 0 : first->height, width = fixed ? 0 : first->width;
    size_t begin = header_size(height);
    if (capacity < begin + CHECK + CRC)
        return SZ_SPACE;
    if (z) {
        const uint32_t check = crc16(y->indexes, symbols_in(y));
        stream[begin++] = (uint8_t)check;
        stream[begin++] = (uint8_t)(check >> 8);
    } else if (is_variable(coder)) {
        stream[begin++] = (uint8_t)level;
    }
    sz_stack stack = {0, stream + begin, 0, capacity - begin - CRC};
    sz_status status = code(coder, level, y, memory, &stack, 0);
    if (status == SZ_OK && z)
        status = code(coder, level, z, memory, &stack, 0);
    if (status == SZ_OK && !close_payload(&stack))
        status = SZ_SPACE;
    if (status == SZ_OK)
        *size = sz_write_frame(stream, begin - header_size(height) + stack.size, coder->stream_id,
                               height, width);
    return status;
}

sz_status sz_begin(sz_reader *reader, const sz_coder *coder, const uint8_t *stream, size_t size)
{
    const uint8_t *payload;
    sz_reader found = {coder, {0, NULL, 0, 0}, {0, 0}, 0, 0, 0, has_hyper(coder) ? 2 : 1};
    sz_status status = sz_read_frame(stream, size, coder->stream_id, &payload, &size,
                                     &found.height, &found.width);
    if (status)
        return status;
    if (!found.height) {
        found.height = coder->height;
        found.width = coder->width;
    }
    if (!is_possible(coder->channels, found.height, found.width))
        return SZ_STREAM;
    const size_t before = has_hyper(coder) ? CHECK : is_variable(coder) ? 1 : 0;
    if (size < before)
        return SZ_STREAM;
    if (has_hyper(coder)) {
        memcpy(found.check, payload, CHECK);
    } else if (is_variable(coder)) {
        found.level = payload[0];
        if (found.level >= coder->levels)
            return SZ_STREAM;
    }
    payload += before;
    size -= before;
    if (size && !payload[size - 1])
        return SZ_STREAM; /* no encoder writes that */
    open_payload(&found.stack, payload, size);
    *reader = found;
    return SZ_OK;
}

sz_status sz_read(sz_reader *reader, const sz_planes *planes, void *memory, size_t memory_bytes)
{
    const sz_coder *coder = reader->coder;
    const int latent = has_hyper(coder) && reader->left == 1;
    if (reader->left < 1 || latent != (planes->indexes != NULL) || !fits(coder, planes))
        return SZ_ARGUMENT;
    if (!latent && (planes->height != reader->height || planes->width != reader->width))
        return SZ_ARGUMENT;
    if (memory_bytes < sz_memory_bytes(coder, planes) || !is_aligned(memory))
        return SZ_MEMORY;
    if (latent) {
        const uint32_t check = crc16(planes->indexes, symbols_in(planes));
        if (reader->check[0] != (check & 255) || reader->check[1] != check >> 8)
            return SZ_DESYNC;
    }
    sz_status status = code(coder, reader->level, planes, memory, &reader->stack, 1);
    if (status)
        return status;
    reader->left--;
    return reader->left || !(reader->stack.state || reader->stack.size) ? SZ_OK : SZ_STREAM;
}

/* coder.bin: see coder_file.py. */

typedef struct {
    const int32_t *at;
    size_t left;
} words;

/* Takes rows times columns words; NULL where there are fewer. */
static const int32_t *take(words *from, int32_t rows, int32_t columns)
{
    if (rows < 0 || columns < 0 || (columns && (size_t)rows > from->left / (size_t)columns))
        return NULL;
    const int32_t *taken = from->at;
    from->at += (size_t)rows * (size_t)columns;
    from->left -= (size_t)rows * (size_t)columns;
    return taken;
}

static int within(const int32_t *values, size_t n, int32_t limit)
{
    for (size_t i = 0; i < n; i++)
        if (values[i] < -limit || values[i] > limit)
            return 0;
    return 1;
}

static int rise(const int32_t *values, int32_t n, int32_t from, int32_t to)
{
    for (int32_t i = 0; i < n; i++)
        if (values[i] < (i ? (int64_t)values[i - 1] + 1 : from) || values[i] > to)
            return 0;
    return 1;
}

static int take_rows(words *from, sz_rows *rows)
{
    const int32_t *sizes = take(from, 3, 1);
    if (!sizes)
        return 0;
    rows->rows = sizes[0], rows->width = sizes[1], rows->precision = sizes[2];
    if (rows->rows < 1 || rows->rows > MAX_CHANNELS || rows->precision < 1 || rows->precision > 16)
        return 0;
    rows->length = take(from, rows->rows, 1);
    rows->offset = rows->length ? take(from, rows->rows, 1) : NULL;
    rows->cdf = rows->offset ? take(from, rows->rows, rows->width) : NULL;
    for (int32_t row = 0; rows->cdf && row < rows->rows; row++) {
        const int32_t *cdf = cdf_of(rows, row), length = rows->length[row];
        const int32_t most = (int32_t)1 << rows->precision;
        if (length < 3 || length > rows->width || rows->offset[row] > INT32_MAX - length ||
            cdf[0] != 0 || cdf[length - 1] != most || !rise(cdf, length, 0, most))
            return 0;
    }
    return rows->cdf != NULL;
}

static int take_context(words *from, sz_context *context)
{
    const int32_t *sizes = take(from, 6, 1);
    if (!sizes)
        return 0;
    context->passes = sizes[0], context->stride = sizes[1], context->sides = sizes[2];
    context->spread_count = sizes[3], context->fraction_count = sizes[4];
    context->limit = sizes[5];
    if (context->passes < 1 || context->passes > 19 || context->passes % 3 != 1 ||
        context->stride < 1 || context->stride > MAX_CHANNELS || context->sides < 0 ||
        context->sides > 256 || context->limit < 1 || context->limit > 255)
        return 0;
    if (context->spread_count < 0 || context->spread_count >= MAX_ROWS ||
        context->fraction_count < 0 || context->fraction_count >= MAX_ROWS)
        return 0;
    const int32_t sums = 2 * (1 + GROUPS);
    context->weights = take(from, context->passes * sums, context->stride);
    context->side = context->weights ? take(from, context->sides, 1) : NULL;
    context->side_weights = context->side ? take(from, context->passes, context->stride) : NULL;
    context->spreads = context->side_weights ? take(from, context->spread_count, 1) : NULL;
    context->fractions = context->spreads ? take(from, context->fraction_count, 1) : NULL;
    if (!context->fractions || !take_rows(from, &context->rows))
        return 0;
    /* With these limits no sum leaves 32 bits. */
    for (int32_t row = 0; row < context->passes * sums; row++)
        if (!within(context->weights + (size_t)row * (size_t)context->stride,
                    (size_t)context->stride, row % sums < 2 ? 1 << 28 : 1 << 16))
            return 0;
    return within(context->side, (size_t)context->sides, 1 << 16) &&
           within(context->side_weights, (size_t)context->passes * (size_t)context->stride,
                  1 << 13) &&
           rise(context->spreads, context->spread_count, 1, 1 << 18) &&
           rise(context->fractions, context->fraction_count, 1, ONE - 1) &&
           context->rows.rows == (context->spread_count + 1) * (context->fraction_count + 1) &&
           context->rows.rows <= MAX_ROWS;
}

sz_status sz_open(sz_coder *coder, const void *content, size_t size)
{
    enum { MAGIC = 0x31435a53, SIZES = 6 }; /* "SZC1" where words are little-endian */
    if (!is_aligned(content) || size % 4 || size < 4 * (SIZES + 1))
        return SZ_TABLES;
    words from = {content, size / 4 - 1};
    const int32_t *sizes = take(&from, SIZES, 1);
    const uint32_t crc = load32((const uint8_t *)content + size - CRC);
    if (sizes[0] != MAGIC || crc != crc32(content, size - CRC))
        return SZ_TABLES;
    if (sizes[1] < SZ_FACTORIZED || sizes[1] > SZ_VARIABLE_RATE_CONTEXT)
        return SZ_TABLES;
    memset(coder, 0, sizeof *coder);
    coder->kind = (sz_kind)sizes[1];
    memcpy(coder->stream_id, sizes + 2, 4);
    coder->height = sizes[3], coder->width = sizes[4], coder->levels = sizes[5];
    const int parts = has_hyper(coder) ? 2 : 1;
    for (int part = 0; part < parts; part++)
        if (!(is_context(coder) ? take_context(&from, &coder->contexts[part])
                                : take_rows(&from, &coder->rows[part])))
            return SZ_TABLES;
    const int32_t all = is_context(coder) ? coder->contexts[parts - 1].stride
                                          : coder->rows[parts - 1].rows;
    if (from.left || coder->levels < 1 || coder->levels > (is_variable(coder) ? 256 : 1) ||
        all % coder->levels)
        return SZ_TABLES;
    coder->channels = all / coder->levels;
    coder->contexts[0].channels = coder->contexts[0].stride / coder->levels;
    coder->contexts[1].channels = coder->contexts[1].stride;
    if (!is_possible(coder->channels, coder->height, coder->width))
        return SZ_TABLES;
    if (coder->kind == SZ_HYPERPRIOR && coder->rows[0].rows > MAX_ROWS)
        return SZ_TABLES;
    if (is_context(coder) && (!coder->contexts[0].sides != !has_hyper(coder) ||
                              coder->contexts[1].sides))
        return SZ_TABLES;
    return SZ_OK;
}

const char *sz_message(sz_status status)
{
    static const char *const messages[] = {
        "all is well",
        "the tables are damaged, not aligned, or for another byte order",
        "what is to be coded does not fit the coder",
        "the memory is too small, or not aligned",
        "the stream does not fit into its buffer",
        "the stream is damaged, or no stream",
        "the stream is of another model",
        "the scale indexes are not those that the device had",
    };
    return (unsigned)status <= SZ_DESYNC ? messages[status] : "no status of this coder";
}
