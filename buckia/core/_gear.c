/* The cut rule of the `default` chunking profile (specs/format.md, section 5).
 *
 * Plain C with no dependencies, so that other languages can compile this file as it is.
 */

#include <stddef.h>
#include <stdint.h>

enum { GEAR_WINDOW = 64, GEAR_MIN = 65536, GEAR_AVG = 262144, GEAR_MAX = 1048576 };

/* A hash below the limit has its top 20 (strict) or 16 (loose) bits zero. */
#define GEAR_STRICT ((uint64_t)1 << 44)
#define GEAR_LOOSE ((uint64_t)1 << 48)

#define GEAR_STEP(k)                         \
    h = (h << 1) + gear[data[i + (k)]];      \
    if (h < limit) return i + (k);

/* The first position in [begin, end) whose hash is below the limit, or `end`. Needs 63 bytes before `begin`. */
static size_t gear_find(const uint8_t *data, size_t begin, size_t end, uint64_t limit, const uint64_t gear[256]) {
    uint64_t h = 0;
    size_t i;
    for (i = begin - (GEAR_WINDOW - 1); i < begin; i++) h = (h << 1) + gear[data[i]];
    /* Four steps per round: the loop's own cost is 40 % of a single step. */
    for (; end - i >= 4; i += 4) {
        GEAR_STEP(0)
        GEAR_STEP(1)
        GEAR_STEP(2)
        GEAR_STEP(3)
    }
    for (; i < end; i++) {
        GEAR_STEP(0)
    }
    return end;
}

/* The length of the chunk at the start of data, or 0 if that takes more bytes than there are. */
static size_t gear_chunk(const uint8_t *data, size_t size, const uint64_t gear[256]) {
    size_t i, end;
    if (size < GEAR_MIN) return 0;
    end = size < GEAR_AVG - 1 ? size : GEAR_AVG - 1;
    i = gear_find(data, GEAR_MIN - 1, end, GEAR_STRICT, gear);
    if (i < end) return i + 1;
    if (end == size) return 0;
    end = size < GEAR_MAX - 1 ? size : GEAR_MAX - 1;
    i = gear_find(data, GEAR_AVG - 1, end, GEAR_LOOSE, gear);
    if (i < end) return i + 1;
    return end == size ? 0 : GEAR_MAX;
}

/* Writes the end offsets of all complete chunks to `ends`, which has room for size / GEAR_MIN + 1, and returns their
 * number. With `final`, what remains is the last chunk. */
static size_t gear_cuts(const uint8_t *data, size_t size, int final, const uint64_t gear[256], size_t *ends) {
    size_t start = 0, count = 0, length;
    while ((length = gear_chunk(data + start, size - start, gear)) != 0) {
        start += length;
        ends[count++] = start;
    }
    if (final && start < size) ends[count++] = size;
    return count;
}
