#include "update.h"

#include "framing.h"
#include "store.h"

#include <string.h>

#define HEADER_MAGIC 0x46575244u
#define MARKER_BYTES HAL_WORD_BYTES /* one a finished page, behind the header */
#define VERIFY_BYTES 512u           /* hashed in one step */
#define BOARD_NAME_BYTES 16u
#define RECORD_BYTES 88u            /* two of: slot, version, size, digest */

/* The slot's first page: header, then markers of the pages that are written whole. */
struct header {
    uint32_t magic;
    struct update_image image;
    uint8_t signature[SIGNATURE_BYTES];
    uint32_t crc;
};

struct boot_record {
    uint32_t slot;
    struct update_image image;
    uint32_t slot_before;
    struct update_image before;
};

_Static_assert(sizeof(struct header) <= UPDATE_HEADER_BYTES, "the header must fit before the markers");
_Static_assert(sizeof(struct boot_record) == RECORD_BYTES, "no padding: the record is stored as it lies in memory");

static enum hal_area slot_area(uint32_t slot)
{
    return slot == 0u ? HAL_SLOT_0 : HAL_SLOT_1;
}

static size_t image_at(uint32_t offset)
{
    return HAL_PAGE_BYTES + (size_t)offset;
}

static uint32_t image_bytes_max(void)
{
    const size_t marked = (HAL_PAGE_BYTES - UPDATE_HEADER_BYTES) / MARKER_BYTES * HAL_PAGE_BYTES;
    const size_t fits = hal_flash_size(HAL_SLOT_0) - HAL_PAGE_BYTES;
    return (uint32_t)(fits < marked ? fits : marked);
}

/* Hash up to `most` bytes more; false when the flash does not answer. */
static bool hash_on(uint32_t slot, uint32_t size, struct sha256 *hash, uint32_t *done, uint32_t most)
{
    uint8_t piece[64];
    const uint32_t end = size - *done < most ? size : *done + most;

    while (*done < end) {
        const uint32_t length = end - *done < sizeof piece ? end - *done : (uint32_t)sizeof piece;
        if (!hal_flash_read(slot_area(slot), image_at(*done), piece, length)) {
            return false;
        }
        sha256_add(hash, piece, length);
        *done += length;
    }
    return true;
}

static bool image_whole(uint32_t slot, const struct update_image *image)
{
    struct sha256 hash;
    uint8_t digest[SHA256_BYTES];
    uint32_t done = 0u;

    sha256_begin(&hash);
    const bool read = hash_on(slot, image->size, &hash, &done, image->size);
    sha256_end(&hash, digest);
    return read && memcmp(digest, image->digest, sizeof digest) == 0;
}

/* A key that could not be stored is brought again at the next start. */
static void follow_key(struct update *update)
{
    uint8_t key[SIGNATURE_KEY_BYTES];

    if (hal_carried_key(slot_area(update->slot), update->running.size, key)) {
        (void)trust_follow(&update->trust, key, update->running.version);
    }
}

void update_boot(struct update *update)
{
    struct boot_record record;

    memset(update, 0, sizeof *update);
    trust_load(&update->trust);
    update->running.version = 1u; /* as shipped, in slot 0 */
    if (store_load(HAL_BOOT_A, (uint8_t *)&record, sizeof record) != STORE_WHOLE) {
        follow_key(update);
        return;
    }
    if (record.slot <= 1u && image_whole(record.slot, &record.image)) {
        update->slot = record.slot;
        update->running = record.image;
    } else if (record.slot_before <= 1u) {
        update->slot = record.slot_before;
        update->running = record.before;
    }
    follow_key(update);
}

static uint32_t header_crc(const struct header *header)
{
    return framing_crc32(0u, (const uint8_t *)header, offsetof(struct header, crc));
}

static bool all_are(const uint8_t *bytes, size_t size, uint8_t value)
{
    bool same = true;

    for (size_t i = 0u; i < size; i++) {
        same = same && bytes[i] == value;
    }
    return same;
}

/* How much of this very image lies in the other slot already, in whole pages; false when to begin anew: nothing of it
   does, or the power failed within a marker, whose word cannot be written again. */
static bool find_begun(const struct update *update, uint32_t *offset)
{
    const enum hal_area area = slot_area(1u - update->slot);
    const uint32_t pages = (update->coming.size + HAL_PAGE_BYTES - 1u) / HAL_PAGE_BYTES;
    struct header header;
    uint8_t marker[MARKER_BYTES] = {0};
    uint32_t page = 0u;

    if (!hal_flash_read(area, 0u, (uint8_t *)&header, sizeof header) || header.magic != HEADER_MAGIC
        || header.crc != header_crc(&header) || memcmp(&header.image, &update->coming, sizeof header.image) != 0) {
        return false;
    }
    while (page < pages) {
        const bool read = hal_flash_read(area, UPDATE_HEADER_BYTES + page * MARKER_BYTES, marker, sizeof marker);
        if (!read || !all_are(marker, sizeof marker, 0u)) {
            break;
        }
        page++;
    }
    if (page < pages && !all_are(marker, sizeof marker, 0xFFu)) {
        return false;
    }
    *offset = page < pages ? page * HAL_PAGE_BYTES : update->coming.size;
    return true;
}

static bool write_header(const struct update *update)
{
    const enum hal_area area = slot_area(1u - update->slot);
    uint8_t bytes[UPDATE_HEADER_BYTES];
    struct header header;

    memset(&header, 0, sizeof header);
    header.magic = HEADER_MAGIC;
    header.image = update->coming;
    memcpy(header.signature, update->signature, sizeof header.signature);
    header.crc = header_crc(&header);
    memset(bytes, 0xFF, sizeof bytes);
    memcpy(bytes, &header, sizeof header);
    return hal_flash_erase(area, 0u) && hal_flash_write(area, 0u, bytes, sizeof bytes);
}

static void put32(uint8_t *at, uint32_t value)
{
    for (size_t i = 0u; i < 4u; i++) {
        at[i] = (uint8_t)((value >> (8u * i)) & 0xFFu);
    }
}

void update_signed(const struct update_image *image, uint8_t message[UPDATE_SIGNED_BYTES])
{
    const char *name = hal_board_name();

    memset(message, 0, UPDATE_SIGNED_BYTES);
    memcpy(message, "OFW1", 4u);
    put32(message + 4u, image->version);
    put32(message + 8u, image->size);
    memcpy(message + 12u, image->digest, sizeof image->digest);
    for (size_t i = 0u; i < BOARD_NAME_BYTES && name[i] != '\0'; i++) {
        message[UPDATE_SIGNED_BYTES - BOARD_NAME_BYTES + i] = (uint8_t)name[i];
    }
}

/* Before anything is erased: the slot that is overwritten is the one to fall back to. */
static bool trusted(const struct update *update)
{
    uint8_t message[UPDATE_SIGNED_BYTES];

    update_signed(&update->coming, message);
    return update->trust.key_version != 0u
        && signature_verify(update->trust.key, message, sizeof message, update->signature);
}

enum outrider_result update_begin(struct update *update, const struct outrider_update_begin *frame)
{
    if (frame->version <= update->running.version || frame->version < update->trust.version_floor) {
        return OUTRIDER_RESULT_TOO_OLD;
    }
    if (frame->size == 0u || frame->size > image_bytes_max()) {
        return OUTRIDER_RESULT_OUT_OF_RANGE;
    }
    update->state = UPDATE_IDLE;
    update->coming.version = frame->version;
    update->coming.size = frame->size;
    memcpy(update->coming.digest, frame->digest, sizeof update->coming.digest);
    memcpy(update->signature, frame->signature, sizeof update->signature);
    if (!trusted(update)) {
        return OUTRIDER_RESULT_BAD_SIGNATURE;
    }
    if (!find_begun(update, &update->offset)) {
        update->offset = 0u;
        if (!write_header(update)) {
            return OUTRIDER_RESULT_STORAGE;
        }
    }
    update->state = UPDATE_TAKING;
    return OUTRIDER_RESULT_OK;
}

static bool write_block(const struct update *update, const struct outrider_update_block *frame)
{
    const enum hal_area area = slot_area(1u - update->slot);
    const uint32_t end = frame->offset + frame->length;
    uint8_t words[OUTRIDER_UPDATE_BLOCK_BYTES];
    static const uint8_t marker[MARKER_BYTES];

    memset(words, 0xFF, sizeof words);
    memcpy(words, frame->data, frame->length);
    const size_t size = ((size_t)frame->length + HAL_WORD_BYTES - 1u) / HAL_WORD_BYTES * HAL_WORD_BYTES;
    if (frame->offset % HAL_PAGE_BYTES == 0u && !hal_flash_erase(area, image_at(frame->offset))) {
        return false;
    }
    if (!hal_flash_write(area, image_at(frame->offset), words, size)) {
        return false;
    }
    if (end % HAL_PAGE_BYTES != 0u && end != update->coming.size) {
        return true;
    }
    const size_t page = frame->offset / HAL_PAGE_BYTES;
    return hal_flash_write(area, UPDATE_HEADER_BYTES + page * MARKER_BYTES, marker, sizeof marker);
}

enum outrider_result update_block(struct update *update, const struct outrider_update_block *frame)
{
    if (update->state != UPDATE_TAKING || frame->offset != update->offset) {
        return OUTRIDER_RESULT_OUT_OF_PLACE;
    }
    const uint32_t left = update->coming.size - update->offset;
    const uint32_t whole = left < OUTRIDER_UPDATE_BLOCK_BYTES ? left : OUTRIDER_UPDATE_BLOCK_BYTES;
    if (frame->length != whole) {
        return OUTRIDER_RESULT_OUT_OF_RANGE; /* only the last block may be short: no word is written twice */
    }
    if (!write_block(update, frame)) {
        update->state = UPDATE_IDLE;
        return OUTRIDER_RESULT_STORAGE;
    }
    update->offset += frame->length;
    return OUTRIDER_RESULT_OK;
}

enum outrider_result update_verify(struct update *update)
{
    if (update->state == UPDATE_VERIFYING || update->state == UPDATE_VERIFIED) {
        return OUTRIDER_RESULT_OK;
    }
    if (update->state != UPDATE_TAKING || update->offset != update->coming.size) {
        return OUTRIDER_RESULT_OUT_OF_PLACE;
    }
    update->state = UPDATE_VERIFYING;
    update->checked = 0u;
    sha256_begin(&update->hash);
    return OUTRIDER_RESULT_OK;
}

bool update_step(struct update *update, enum outrider_result *result)
{
    uint8_t digest[SHA256_BYTES];

    if (update->state != UPDATE_VERIFYING) {
        return false;
    }
    if (!hash_on(1u - update->slot, update->coming.size, &update->hash, &update->checked, VERIFY_BYTES)) {
        update->state = UPDATE_IDLE;
        *result = OUTRIDER_RESULT_STORAGE;
        return true;
    }
    if (update->checked < update->coming.size) {
        return false;
    }
    sha256_end(&update->hash, digest);
    /* The signature, checked before the first byte was taken, is over this digest. */
    const bool good = memcmp(digest, update->coming.digest, sizeof digest) == 0;
    update->state = good ? UPDATE_VERIFIED : UPDATE_IDLE;
    *result = good ? OUTRIDER_RESULT_OK : OUTRIDER_RESULT_BAD_DIGEST;
    if (!good) {
        (void)hal_flash_erase(slot_area(1u - update->slot), 0u); /* never resumed */
    }
    return true;
}

enum outrider_result update_switch(struct update *update)
{
    struct boot_record record;

    if (update->state != UPDATE_VERIFIED) {
        return OUTRIDER_RESULT_OUT_OF_PLACE;
    }
    record.slot = 1u - update->slot;
    record.image = update->coming;
    record.slot_before = update->slot;
    record.before = update->running;
    /* The floor first: when the power fails in between, this very image may still be installed, an older one not. */
    if (!trust_raise_floor(&update->trust, update->coming.version)) {
        return OUTRIDER_RESULT_STORAGE;
    }
    if (!store_save(HAL_BOOT_A, (const uint8_t *)&record, sizeof record)) {
        return OUTRIDER_RESULT_STORAGE;
    }
    update->state = UPDATE_IDLE; /* the core restarts; until then it listens to nobody */
    return OUTRIDER_RESULT_OK;
}
