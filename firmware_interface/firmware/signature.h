/* The one piece of cryptography that this firmware needs and does not write itself. A board links it to a kept library
   built for it: Monocypher's crypto_ed25519_check, libsodium's crypto_sign_verify_detached, or what its vendor brings. */
#ifndef OUTRIDER_SIGNATURE_H
#define OUTRIDER_SIGNATURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGNATURE_KEY_BYTES 32u
#define SIGNATURE_BYTES 64u

/* Ed25519 (RFC 8032). Only called while disarmed, once an update; may take as long as it does (tens of ms). A board
   without a library returns false, leaves SIGNATURE out of its capabilities, and takes no update. */
bool signature_verify(const uint8_t public_key[SIGNATURE_KEY_BYTES], const uint8_t *message, size_t size,
                      const uint8_t signature[SIGNATURE_BYTES]);

#endif
