#include "sha256.h"

static const uint32_t round_constants[64] = {
    0x428A2F98u, 0x71374491u, 0xB5C0FBCFu, 0xE9B5DBA5u, 0x3956C25Bu, 0x59F111F1u, 0x923F82A4u, 0xAB1C5ED5u,
    0xD807AA98u, 0x12835B01u, 0x243185BEu, 0x550C7DC3u, 0x72BE5D74u, 0x80DEB1FEu, 0x9BDC06A7u, 0xC19BF174u,
    0xE49B69C1u, 0xEFBE4786u, 0x0FC19DC6u, 0x240CA1CCu, 0x2DE92C6Fu, 0x4A7484AAu, 0x5CB0A9DCu, 0x76F988DAu,
    0x983E5152u, 0xA831C66Du, 0xB00327C8u, 0xBF597FC7u, 0xC6E00BF3u, 0xD5A79147u, 0x06CA6351u, 0x14292967u,
    0x27B70A85u, 0x2E1B2138u, 0x4D2C6DFCu, 0x53380D13u, 0x650A7354u, 0x766A0ABBu, 0x81C2C92Eu, 0x92722C85u,
    0xA2BFE8A1u, 0xA81A664Bu, 0xC24B8B70u, 0xC76C51A3u, 0xD192E819u, 0xD6990624u, 0xF40E3585u, 0x106AA070u,
    0x19A4C116u, 0x1E376C08u, 0x2748774Cu, 0x34B0BCB5u, 0x391C0CB3u, 0x4ED8AA4Au, 0x5B9CCA4Fu, 0x682E6FF3u,
    0x748F82EEu, 0x78A5636Fu, 0x84C87814u, 0x8CC70208u, 0x90BEFFFAu, 0xA4506CEBu, 0xBEF9A3F7u, 0xC67178F2u,
};

static uint32_t rotate(uint32_t value, unsigned by)
{
    return (value >> by) | (value << (32u - by));
}

static void mix(struct sha256 *hash)
{
    uint32_t w[64];
    uint32_t s[8];

    for (size_t i = 0; i < 16u; i++) {
        const uint8_t *at = &hash->block[4u * i];
        w[i] = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | (uint32_t)at[3];
    }
    for (size_t i = 16u; i < 64u; i++) {
        const uint32_t a = rotate(w[i - 15u], 7u) ^ rotate(w[i - 15u], 18u) ^ (w[i - 15u] >> 3);
        const uint32_t b = rotate(w[i - 2u], 17u) ^ rotate(w[i - 2u], 19u) ^ (w[i - 2u] >> 10);
        w[i] = w[i - 16u] + a + w[i - 7u] + b;
    }
    for (size_t i = 0; i < 8u; i++) {
        s[i] = hash->state[i];
    }
    for (size_t i = 0; i < 64u; i++) {
        const uint32_t big1 = rotate(s[4], 6u) ^ rotate(s[4], 11u) ^ rotate(s[4], 25u);
        const uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        const uint32_t one = s[7] + big1 + choice + round_constants[i] + w[i];
        const uint32_t big0 = rotate(s[0], 2u) ^ rotate(s[0], 13u) ^ rotate(s[0], 22u);
        const uint32_t two = big0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        for (size_t k = 7u; k > 0u; k--) {
            s[k] = s[k - 1u];
        }
        s[4] += one;
        s[0] = one + two;
    }
    for (size_t i = 0; i < 8u; i++) {
        hash->state[i] += s[i];
    }
}

void sha256_begin(struct sha256 *hash)
{
    static const uint32_t start[8] = {
        0x6A09E667u, 0xBB67AE85u, 0x3C6EF372u, 0xA54FF53Au, 0x510E527Fu, 0x9B05688Cu, 0x1F83D9ABu, 0x5BE0CD19u,
    };
    for (size_t i = 0; i < 8u; i++) {
        hash->state[i] = start[i];
    }
    hash->size = 0u;
}

void sha256_add(struct sha256 *hash, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        hash->block[hash->size % 64u] = data[i];
        hash->size++;
        if (hash->size % 64u == 0u) {
            mix(hash);
        }
    }
}

void sha256_end(struct sha256 *hash, uint8_t digest[SHA256_BYTES])
{
    static const uint8_t one = 0x80u;
    static const uint8_t zero = 0u;
    const uint64_t bits = hash->size * 8u;

    sha256_add(hash, &one, 1u);
    while (hash->size % 64u != 56u) {
        sha256_add(hash, &zero, 1u);
    }
    for (unsigned shift = 64u; shift > 0u; shift -= 8u) {
        const uint8_t byte = (uint8_t)((bits >> (shift - 8u)) & 0xFFu);
        sha256_add(hash, &byte, 1u);
    }
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        digest[i] = (uint8_t)((hash->state[i / 4u] >> (24u - 8u * (i % 4u))) & 0xFFu);
    }
}
