#include "store.h"

#include "framing.h"

#include <string.h>

#define MAGIC 0x5254554Fu /* "OUTR" */
#define HEAD_BYTES 8u     /* magic, counter */
#define CRC_BYTES 4u
#define RECORD_MAX_BYTES (HEAD_BYTES + STORE_BODY_MAX_BYTES + CRC_BYTES + HAL_WORD_BYTES)

static void put32(uint8_t *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static enum hal_area copy_of(enum hal_area first, unsigned copy)
{
    return (enum hal_area)((unsigned)first + copy);
}

static enum store_found read_copy(enum hal_area area, uint8_t *record, size_t size)
{
    const size_t covered = HEAD_BYTES + size;
    bool blank = true;

    if (!hal_flash_read(area, 0u, record, covered + CRC_BYTES)) {
        return STORE_DAMAGED;
    }
    for (size_t i = 0u; i < covered + CRC_BYTES; i++) {
        blank = blank && record[i] == 0xFFu;
    }
    if (blank) {
        return STORE_NONE;
    }
    const bool whole = get32(record) == MAGIC && get32(record + covered) == framing_crc32(0u, record, covered);
    return whole ? STORE_WHOLE : STORE_DAMAGED;
}

/* Which copy is the newest whole one, and its counter. `record` holds it where one is found. */
static enum store_found newest(enum hal_area first, uint8_t *record, size_t size, unsigned *copy, uint32_t *counter)
{
    uint8_t other[RECORD_MAX_BYTES];
    const enum store_found a = read_copy(first, record, size);
    const enum store_found b = read_copy(copy_of(first, 1u), other, size);

    *copy = 0u;
    *counter = 0u;
    if (a != STORE_WHOLE && b != STORE_WHOLE) {
        return a == STORE_DAMAGED || b == STORE_DAMAGED ? STORE_DAMAGED : STORE_NONE;
    }
    if (a != STORE_WHOLE || (b == STORE_WHOLE && get32(other + 4u) > get32(record + 4u))) {
        memcpy(record, other, RECORD_MAX_BYTES);
        *copy = 1u;
    }
    *counter = get32(record + 4u);
    return STORE_WHOLE;
}

enum store_found store_load(enum hal_area first, uint8_t *body, size_t size)
{
    uint8_t record[RECORD_MAX_BYTES] = {0};
    unsigned copy;
    uint32_t counter;
    const enum store_found found = newest(first, record, size, &copy, &counter);

    if (found == STORE_WHOLE) {
        memcpy(body, record + HEAD_BYTES, size);
    }
    return found;
}

bool store_save(enum hal_area first, const uint8_t *body, size_t size)
{
    uint8_t record[RECORD_MAX_BYTES] = {0};
    unsigned copy;
    uint32_t counter;
    const enum store_found found = newest(first, record, size, &copy, &counter);
    const enum hal_area area = copy_of(first, found == STORE_WHOLE ? 1u - copy : 0u);
    const size_t covered = HEAD_BYTES + size;
    const size_t words = (covered + CRC_BYTES + HAL_WORD_BYTES - 1u) / HAL_WORD_BYTES;

    memset(record, 0xFF, sizeof record);
    put32(record, MAGIC);
    put32(record + 4u, counter + 1u);
    memcpy(record + HEAD_BYTES, body, size);
    put32(record + covered, framing_crc32(0u, record, covered));
    return hal_flash_erase(area, 0u) && hal_flash_write(area, 0u, record, words * HAL_WORD_BYTES);
}
