/* A small record that survives power cuts: two copies, the newest whole one counts. */
#ifndef OUTRIDER_STORE_H
#define OUTRIDER_STORE_H

#include "hal.h"

#define STORE_BODY_MAX_BYTES 128u

enum store_found { STORE_NONE, STORE_DAMAGED, STORE_WHOLE };

/* Read the newest whole copy; `size` is a multiple of 4. DAMAGED: something was written, nothing of it is whole. */
enum store_found store_load(enum hal_area first, uint8_t *body, size_t size);

/* Replace the older copy. False when the flash refused; then the newest one is as it was. */
bool store_save(enum hal_area first, const uint8_t *body, size_t size);

#endif
