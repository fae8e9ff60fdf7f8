/* COBS and CRC-32: bytes of a stream to whole frames and back. No memory but the caller's. */
#ifndef OUTRIDER_FRAMING_H
#define OUTRIDER_FRAMING_H

#include "generated/outrider_protocol.h"

#define FRAMING_CRC_BYTES 4u
#define FRAMING_WIRE_MAX_BYTES (OUTRIDER_RAW_MAX_BYTES + 2u) /* with the zero byte */

struct framing_reader {
    uint8_t encoded[OUTRIDER_RAW_MAX_BYTES + 1u];
    size_t size;
    bool too_long;
};

uint32_t framing_crc32(uint32_t crc, const uint8_t *data, size_t size);

/* What goes over the wire, its zero byte included; 0 when a field is out of its range. `wire` takes
   FRAMING_WIRE_MAX_BYTES. */
size_t framing_encode(const struct outrider_frame *frame, uint8_t *wire);

/* A frame from what lay between two zero bytes. `encoded` is overwritten. */
enum outrider_verdict framing_decode(uint8_t *encoded, size_t size, struct outrider_frame *frame);

void framing_reader_reset(struct framing_reader *reader);

/* Take one byte; true when it ended a frame, good or not: see `verdict`. */
bool framing_read(struct framing_reader *reader, uint8_t byte, struct outrider_frame *frame,
                  enum outrider_verdict *verdict);

#endif
