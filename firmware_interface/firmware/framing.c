#include "framing.h"

static uint8_t crc_byte(uint32_t crc, unsigned shift)
{
    return (uint8_t)((crc >> shift) & 0xFFu);
}

/* Half a byte at a time: 64 bytes of table. Polynomial 0xEDB88320 (zlib, IEEE 802.3). */
uint32_t framing_crc32(uint32_t crc, const uint8_t *data, size_t size)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu,
    };
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

size_t framing_encode(const struct outrider_frame *frame, uint8_t *wire)
{
    uint8_t raw[OUTRIDER_RAW_MAX_BYTES];
    size_t size = outrider_encode(frame, raw);
    size_t code_at = 0u;
    size_t out = 1u;

    if (size == 0u) {
        return 0u;
    }
    const uint32_t crc = framing_crc32(0u, raw, size);
    for (unsigned shift = 0u; shift < 32u; shift += 8u) {
        raw[size++] = crc_byte(crc, shift);
    }
    for (size_t i = 0u; i < size; i++) {
        if (raw[i] == 0u) {
            wire[code_at] = (uint8_t)(out - code_at);
            code_at = out++;
        } else {
            wire[out++] = raw[i];
        }
    }
    wire[code_at] = (uint8_t)(out - code_at);
    wire[out++] = 0u;
    return out;
}

/* In place: what is decoded never gets ahead of what is read. SIZE_MAX when it is no COBS encoding. */
static size_t cobs_decode(uint8_t *data, size_t size)
{
    size_t in = 0u;
    size_t out = 0u;

    while (in < size) {
        const size_t code = data[in++];
        if (code == 0u || code - 1u > size - in) {
            return SIZE_MAX;
        }
        for (size_t i = 1u; i < code; i++) {
            if (data[in] == 0u) {
                return SIZE_MAX;
            }
            data[out++] = data[in++];
        }
        if (in < size) { /* no frame is long enough for a code of 255, which would stand for no zero */
            data[out++] = 0u;
        }
    }
    return out;
}

enum outrider_verdict framing_decode(uint8_t *encoded, size_t size, struct outrider_frame *frame)
{
    if (size > OUTRIDER_RAW_MAX_BYTES + 1u) {
        return OUTRIDER_VERDICT_TOO_LONG;
    }
    const size_t raw = cobs_decode(encoded, size);
    if (raw == SIZE_MAX) {
        return OUTRIDER_VERDICT_BAD_COBS;
    }
    if (raw <= FRAMING_CRC_BYTES) {
        return OUTRIDER_VERDICT_TOO_SHORT;
    }
    const size_t fields = raw - FRAMING_CRC_BYTES;
    const uint32_t crc = framing_crc32(0u, encoded, fields);
    for (unsigned i = 0u; i < FRAMING_CRC_BYTES; i++) {
        if (encoded[fields + i] != crc_byte(crc, 8u * i)) {
            return OUTRIDER_VERDICT_BAD_CRC;
        }
    }
    return outrider_decode(encoded, fields, frame);
}

void framing_reader_reset(struct framing_reader *reader)
{
    reader->size = 0u;
    reader->too_long = false;
}

bool framing_read(struct framing_reader *reader, uint8_t byte, struct outrider_frame *frame,
                  enum outrider_verdict *verdict)
{
    if (byte != 0u) {
        if (reader->size == sizeof reader->encoded) {
            reader->too_long = true;
        } else {
            reader->encoded[reader->size++] = byte;
        }
        return false;
    }
    if (reader->size == 0u) {
        return false;
    }
    *verdict = reader->too_long ? OUTRIDER_VERDICT_TOO_LONG : framing_decode(reader->encoded, reader->size, frame);
    framing_reader_reset(reader);
    return true;
}
