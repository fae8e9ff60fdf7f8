/* The emulated board's Ed25519: libsodium's, where it was there when this was built (firmware_interface/emulator/build.py). */
#include "host.h"

#ifdef OUTRIDER_SODIUM

#include <sodium.h>
#include <string.h>

_Static_assert(SIGNATURE_KEY_BYTES == crypto_sign_PUBLICKEYBYTES, "Ed25519 keys are 32 bytes");
_Static_assert(SIGNATURE_BYTES == crypto_sign_BYTES, "Ed25519 signatures are 64 bytes");

bool host_signature_built(void)
{
    return sodium_init() >= 0;
}

bool signature_verify(const uint8_t public_key[SIGNATURE_KEY_BYTES], const uint8_t *message, size_t size,
                      const uint8_t signature[SIGNATURE_BYTES])
{
    return crypto_sign_verify_detached(signature, message, size, public_key) == 0;
}

void host_sign(const uint8_t *message, size_t size, uint8_t signature[SIGNATURE_BYTES])
{
    unsigned char key[crypto_sign_PUBLICKEYBYTES];
    unsigned char secret[crypto_sign_SECRETKEYBYTES];
    unsigned char seed[crypto_sign_SEEDBYTES];

    memset(seed, 7, sizeof seed);
    (void)crypto_sign_seed_keypair(key, secret, seed);
    memcpy(host.key, key, sizeof host.key);
    host.key_there = true;
    (void)crypto_sign_detached(signature, NULL, message, size, secret);
}

#else

bool host_signature_built(void)
{
    return false;
}

bool signature_verify(const uint8_t public_key[SIGNATURE_KEY_BYTES], const uint8_t *message, size_t size,
                      const uint8_t signature[SIGNATURE_BYTES])
{
    (void)public_key;
    (void)message;
    (void)size;
    (void)signature;
    return false;
}

void host_sign(const uint8_t *message, size_t size, uint8_t signature[SIGNATURE_BYTES])
{
    (void)message;
    (void)size;
    for (size_t i = 0u; i < SIGNATURE_BYTES; i++) {
        signature[i] = 0u;
    }
}

#endif
