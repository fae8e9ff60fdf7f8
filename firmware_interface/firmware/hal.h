/* What a board must provide. Nothing here may block for longer than it says; nothing is called from an interrupt.
   A board calls core_init once, core_receive with what its serial line brought, and core_step every millisecond. */
#ifndef OUTRIDER_HAL_H
#define OUTRIDER_HAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HAL_PAGE_BYTES 2048u /* the piece of flash that is erased at once */
#define HAL_WORD_BYTES 8u    /* the piece that is written at once, and only once after an erase */

enum hal_area {
    HAL_BOOT_A, /* one page each */
    HAL_BOOT_B,
    HAL_PARAMETERS_A,
    HAL_PARAMETERS_B,
    HAL_TRUST_A, /* key and lowest version: write-protected from everything else where the MCU can */
    HAL_TRUST_B,
    HAL_SLOT_0, /* whole pages, the same number each */
    HAL_SLOT_1,
    HAL_AREAS
};

struct hal_sensors {
    bool answering; /* false: encoders, IMU or battery monitor have fallen silent */
    int32_t ticks[2]; /* left, right */
    float speed_radps[2];
    float current_a[2];
    float acceleration_mps2[3];
    float turn_rate_radps[3];
    float battery_v;
    float battery_a;
    float charge;
    uint8_t bumpers;
    bool emergency_stop; /* true as well when its wire is broken */
};

/* Monotonic, from any start. */
uint64_t hal_time_us(void);

/* A whole frame or nothing; false when there is no room. Never waits. */
bool hal_serial_write(const uint8_t *data, size_t size);

void hal_sensors_read(struct hal_sensors *sensors);

/* Share of the supply voltage in [-1, 1], left and right. With `enabled` false the bridges are off. The driver stage
   limits the current by itself: that is what bounds the deceleration of a stop. */
void hal_motors(bool enabled, float left, float right);

/* What the speed loop is asked for, rad/s: for tracing, and for plants that close the loop themselves. */
void hal_wheels_wanted(float left_radps, float right_radps);

/* How often this board has started; kept over power cuts, or random: two starts must not give the same. */
uint32_t hal_boot_count(void);

/* Only called while disarmed. Erasing a page may take as long as the flash does. */
size_t hal_flash_size(enum hal_area area);
bool hal_flash_erase(enum hal_area area, size_t offset); /* one page */
bool hal_flash_write(enum hal_area area, size_t offset, const uint8_t *data, size_t size); /* whole words */
bool hal_flash_read(enum hal_area area, size_t offset, uint8_t *data, size_t size);

/* The public key that the running firmware brings with it, a constant of its own code; false: none. It runs, so either
   it was put there by whoever made the board, or its signature was checked (trust.h). `slot` and `size` are for
   emulators, whose images do not run; size 0: as shipped. */
bool hal_carried_key(enum hal_area slot, uint32_t size, uint8_t key[32]);
uint32_t hal_capabilities(void);
const char *hal_board_name(void); /* at most 16 characters */

/* Start anew; may return, the core then does nothing more. */
void hal_restart(void);

#endif
