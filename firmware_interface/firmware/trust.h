/* Whose firmware this board takes, and from which version on. No frame of the protocol reaches it. */
#ifndef OUTRIDER_TRUST_H
#define OUTRIDER_TRUST_H

#include "signature.h"

struct trust {
    uint8_t key[SIGNATURE_KEY_BYTES];
    uint32_t key_version;   /* of the firmware that brought it; 0: there is no key, and no update is taken */
    uint32_t version_floor; /* nothing below it is installed any more, whatever runs */
};

void trust_load(struct trust *trust);

/* The running firmware brings a key. The first one's is taken as it is; a later one's only when its version is above
   that of the one before it, with whose key it was signed. False when it could not be stored. */
bool trust_follow(struct trust *trust, const uint8_t key[SIGNATURE_KEY_BYTES], uint32_t version);

/* Up, never down. False when it could not be stored; then it is as it was. */
bool trust_raise_floor(struct trust *trust, uint32_t version);

#endif
