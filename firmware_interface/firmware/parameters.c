#include "parameters.h"

#include "store.h"

#include <string.h>

_Static_assert(sizeof(struct parameters) <= STORE_BODY_MAX_BYTES, "the parameters must fit a record");

static float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool in_range(const struct outrider_parameter_entry *entry, uint32_t bits)
{
    if (entry->kind == OUTRIDER_KIND_U32) {
        return bits >= entry->low_bits && bits <= entry->high_bits;
    }
    return as_float(bits) >= as_float(entry->low_bits) && as_float(bits) <= as_float(entry->high_bits);
}

bool parameters_load(struct parameters *parameters)
{
    struct parameters stored;
    const enum store_found found = store_load(HAL_PARAMETERS_A, (uint8_t *)&stored, sizeof stored);
    bool good = found == STORE_WHOLE;

    for (size_t i = 0u; i < OUTRIDER_PARAMETER_COUNT; i++) {
        parameters->bits[i] = outrider_parameters[i].default_bits;
        good = good && in_range(&outrider_parameters[i], stored.bits[i]);
    }
    if (good) {
        *parameters = stored;
    }
    return good || found == STORE_NONE;
}

float parameters_float(const struct parameters *parameters, unsigned place)
{
    return as_float(parameters->bits[place]);
}

static bool find(uint8_t id, size_t *place)
{
    for (size_t i = 0u; i < OUTRIDER_PARAMETER_COUNT; i++) {
        if (outrider_parameters[i].id == id) {
            *place = i;
            return true;
        }
    }
    return false;
}

enum outrider_result parameters_get(const struct parameters *parameters, uint8_t id, uint32_t *bits)
{
    size_t place;

    if (!find(id, &place)) {
        return OUTRIDER_RESULT_UNKNOWN;
    }
    *bits = parameters->bits[place];
    return OUTRIDER_RESULT_OK;
}

enum outrider_result parameters_set(struct parameters *parameters, const struct outrider_parameter_set *set,
                                    uint32_t *bits)
{
    struct parameters changed = *parameters;
    size_t place;

    if (!find(set->id, &place)) {
        return OUTRIDER_RESULT_UNKNOWN;
    }
    *bits = parameters->bits[place];
    if (set->kind != outrider_parameters[place].kind || !in_range(&outrider_parameters[place], set->bits)) {
        return OUTRIDER_RESULT_OUT_OF_RANGE;
    }
    if (set->bits == *bits) {
        return OUTRIDER_RESULT_OK; /* spares the flash */
    }
    changed.bits[place] = set->bits;
    if (!store_save(HAL_PARAMETERS_A, (const uint8_t *)&changed, sizeof changed)) {
        return OUTRIDER_RESULT_STORAGE;
    }
    *parameters = changed;
    *bits = set->bits;
    return OUTRIDER_RESULT_OK;
}
