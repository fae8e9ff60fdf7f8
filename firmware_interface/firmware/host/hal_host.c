/* The HAL on a workstation. */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TICKS_PER_RAD (4096.0 / 6.283185307179586)

struct host host;

static size_t area_at(enum hal_area area)
{
    return area <= HAL_SLOT_0 ? (size_t)area * HAL_PAGE_BYTES : (size_t)HAL_SLOT_0 * HAL_PAGE_BYTES + HOST_SLOT_BYTES;
}

static const size_t flash_bytes = (size_t)HAL_SLOT_0 * HAL_PAGE_BYTES + 2u * HOST_SLOT_BYTES;

void host_init(void)
{
    memset(&host, 0, sizeof host);
    host.rate = 1.0;
    host.flash_file = -1;
    host.cut_after = UINT64_MAX;
    host.plant.socket = -1;
    host.plant.acceleration_mps2[2] = 9.81f;
    host.plant.charge = 0.8f;
    host.plant.silent_max_s = 0.2;
    host.forced.battery_v = 25.2f;
    host.boots = 1u;
    memcpy(host.name, "host-emulator", sizeof "host-emulator");
    line_init(&host.to_board, 1u);
    line_init(&host.to_host, 2u);
}

void host_flash_blank(void)
{
    free(host.flash);
    host.flash = malloc(flash_bytes);
    if (host.flash == NULL) {
        abort();
    }
    memset(host.flash, 0xFF, flash_bytes);
}

/* The file: boot counter (4 bytes), then the flash. */
bool host_flash_open(const char *path)
{
    host_flash_blank();
    host.flash_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (host.flash_file < 0) {
        return false;
    }
    uint32_t boots = 0u;
    const ssize_t head = pread(host.flash_file, &boots, sizeof boots, 0);
    const ssize_t rest = pread(host.flash_file, host.flash, flash_bytes, (off_t)sizeof boots);
    if (head < 0 || rest < 0) {
        return false;
    }
    host.boots = (head == (ssize_t)sizeof boots ? boots : 0u) + 1u;
    return pwrite(host.flash_file, &host.boots, sizeof host.boots, 0) == (ssize_t)sizeof host.boots
        && pwrite(host.flash_file, host.flash, flash_bytes, (off_t)sizeof boots) == (ssize_t)flash_bytes
        && fsync(host.flash_file) == 0;
}

uint64_t hal_time_us(void)
{
    struct timespec now;

    if (host.virtual_time) {
        return host.now_us;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)(host.rate * (1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec));
}

bool hal_serial_write(const uint8_t *data, size_t size)
{
    if (size > HOST_TX_BYTES - host.tx_size) {
        return false;
    }
    memcpy(host.tx + host.tx_size, data, size);
    host.tx_size += size;
    host.frames_out++;
    return true;
}

void hal_sensors_read(struct hal_sensors *sensors)
{
    const struct host_plant *plant = &host.plant;
    const double radius_m = 0.08;
    const double track_m = 0.40;

    memset(sensors, 0, sizeof *sensors);
    host_plant_step(1e-6 * (double)hal_time_us());
    sensors->answering = !host.forced.silent
        && (plant->socket < 0 || plant->stepped_s - plant->silent_since_s < plant->silent_max_s);
    for (size_t i = 0u; i < 2u; i++) {
        sensors->ticks[i] = (int32_t)(uint32_t)(int64_t)(plant->angle_rad[i] * TICKS_PER_RAD);
        sensors->speed_radps[i] = (float)plant->speed_radps[i] + host.forced.push_radps[i];
        sensors->current_a[i] = (float)plant->current_a[i] + host.forced.current_a[i];
    }
    memcpy(sensors->acceleration_mps2, plant->acceleration_mps2, sizeof sensors->acceleration_mps2);
    memcpy(sensors->turn_rate_radps, plant->turn_rate_radps, sizeof sensors->turn_rate_radps);
    sensors->battery_v = host.forced.battery_v;
    sensors->battery_a = plant->battery_a;
    sensors->charge = plant->charge;
    if (plant->socket < 0) {
        sensors->turn_rate_radps[2] = (float)((plant->speed_radps[1] - plant->speed_radps[0]) * radius_m / track_m);
        sensors->battery_a = 1.0f + (float)(plant->current_a[0] + plant->current_a[1]);
    }
    sensors->bumpers = (uint8_t)host.forced.bumpers;
    sensors->emergency_stop = host.forced.emergency_stop;
}

void hal_motors(bool enabled, float left, float right)
{
    host.enabled = enabled;
    host.effort[0] = left;
    host.effort[1] = right;
}

void hal_wheels_wanted(float left_radps, float right_radps)
{
    host.wanted_radps[0] = left_radps;
    host.wanted_radps[1] = right_radps;
}

uint32_t hal_boot_count(void)
{
    return host.boots;
}

size_t hal_flash_size(enum hal_area area)
{
    return area < HAL_SLOT_0 ? HAL_PAGE_BYTES : HOST_SLOT_BYTES;
}

static bool inside(enum hal_area area, size_t offset, size_t size)
{
    return area < HAL_AREAS && offset <= hal_flash_size(area) && size <= hal_flash_size(area) - offset;
}

/* Change the flash up to the byte at which the power fails. */
static bool change(size_t at, const uint8_t *data, size_t size)
{
    if (host.powerless) {
        return false;
    }
    const uint64_t left = host.cut_after - host.flash_written;
    const size_t done = left < size ? (size_t)left : size;

    memcpy(host.flash + at, data, done);
    host.flash_written += done;
    if (host.flash_file >= 0
        && (pwrite(host.flash_file, host.flash + at, done, (off_t)(at + sizeof host.boots)) != (ssize_t)done
            || fdatasync(host.flash_file) != 0)) {
        return false;
    }
    if (done < size) {
        host.powerless = true;
        if (host.cut_ends_process) {
            _exit(9);
        }
    }
    return done == size;
}

bool hal_flash_erase(enum hal_area area, size_t offset)
{
    uint8_t blank[HAL_PAGE_BYTES];

    if (offset % HAL_PAGE_BYTES != 0u || !inside(area, offset, HAL_PAGE_BYTES)) {
        return false;
    }
    memset(blank, 0xFF, sizeof blank);
    return change(area_at(area) + offset, blank, sizeof blank);
}

bool hal_flash_write(enum hal_area area, size_t offset, const uint8_t *data, size_t size)
{
    if (offset % HAL_WORD_BYTES != 0u || size % HAL_WORD_BYTES != 0u || !inside(area, offset, size)) {
        return false;
    }
    for (size_t i = 0u; i < size; i++) {
        if (host.flash[area_at(area) + offset + i] != 0xFFu) {
            return false; /* as real flash with error correction: once after an erase */
        }
    }
    return change(area_at(area) + offset, data, size);
}

bool hal_flash_read(enum hal_area area, size_t offset, uint8_t *data, size_t size)
{
    if (host.powerless || !inside(area, offset, size)) {
        return false;
    }
    memcpy(data, host.flash + area_at(area) + offset, size);
    return true;
}

/* As shipped, it brings the key that it was started with; an image brings one when its payload begins as this. */
bool hal_carried_key(enum hal_area slot, uint32_t size, uint8_t key[32])
{
    static const uint8_t mark[16] = "OUTRIDER-KEY-V1";
    uint8_t begin[sizeof mark + 32u];

    if (size == 0u) {
        memcpy(key, host.key, sizeof host.key);
        return host.key_there;
    }
    if (size < sizeof begin || !hal_flash_read(slot, HAL_PAGE_BYTES, begin, sizeof begin)
        || memcmp(begin, mark, sizeof mark) != 0) {
        return false;
    }
    memcpy(key, begin + sizeof mark, 32u);
    return true;
}

uint32_t hal_capabilities(void)
{
    return OUTRIDER_CAPABILITY_WHEELS | OUTRIDER_CAPABILITY_IMU | OUTRIDER_CAPABILITY_BATTERY
        | OUTRIDER_CAPABILITY_BUMPER | OUTRIDER_CAPABILITY_EMERGENCY_STOP | OUTRIDER_CAPABILITY_UPDATE
        | (host_signature_built() ? OUTRIDER_CAPABILITY_SIGNATURE : 0u);
}

const char *hal_board_name(void)
{
    return host.name;
}

void hal_restart(void)
{
    host.restart_wanted = true;
}
