/* SHA-256 (FIPS 180-4), a piece at a time. */
#ifndef OUTRIDER_SHA256_H
#define OUTRIDER_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32u

struct sha256 {
    uint32_t state[8];
    uint8_t block[64];
    uint64_t size;
};

void sha256_begin(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const uint8_t *data, size_t size);
void sha256_end(struct sha256 *hash, uint8_t digest[SHA256_BYTES]);

#endif
