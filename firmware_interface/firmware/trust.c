#include "trust.h"

#include "store.h"

#include <string.h>

#define RECORD_BYTES 40u

_Static_assert(sizeof(struct trust) == RECORD_BYTES, "no padding: the record is stored as it lies in memory");

void trust_load(struct trust *trust)
{
    if (store_load(HAL_TRUST_A, (uint8_t *)trust, sizeof *trust) != STORE_WHOLE) {
        memset(trust, 0, sizeof *trust);
    }
}

static bool keep(struct trust *trust, const struct trust *wanted)
{
    if (!store_save(HAL_TRUST_A, (const uint8_t *)wanted, sizeof *wanted)) {
        return false;
    }
    *trust = *wanted;
    return true;
}

bool trust_follow(struct trust *trust, const uint8_t key[SIGNATURE_KEY_BYTES], uint32_t version)
{
    struct trust wanted = *trust;

    if (version <= trust->key_version) {
        return true; /* an image fallen back to does not bring an old key back */
    }
    memcpy(wanted.key, key, sizeof wanted.key);
    wanted.key_version = version;
    return keep(trust, &wanted);
}

bool trust_raise_floor(struct trust *trust, uint32_t version)
{
    struct trust wanted = *trust;

    if (version <= trust->version_floor) {
        return true;
    }
    wanted.version_floor = version;
    return keep(trust, &wanted);
}
