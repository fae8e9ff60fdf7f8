/* The values that the board keeps. */
#ifndef OUTRIDER_PARAMETERS_H
#define OUTRIDER_PARAMETERS_H

#include "generated/outrider_protocol.h"

struct parameters {
    uint32_t bits[OUTRIDER_PARAMETER_COUNT];
};

/* What is stored, or the built-in ones; false when something was stored and is damaged or out of range. */
bool parameters_load(struct parameters *parameters);
float parameters_float(const struct parameters *parameters, unsigned place);
enum outrider_result parameters_get(const struct parameters *parameters, uint8_t id, uint32_t *bits);

/* Check, store, then use; as before when refused. `bits` is what holds afterwards. */
enum outrider_result parameters_set(struct parameters *parameters, const struct outrider_parameter_set *set,
                                    uint32_t *bits);

#endif
