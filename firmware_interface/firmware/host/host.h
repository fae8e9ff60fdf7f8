/* The board as a process: HAL over memory and a file, a motor model, and a line that can be made bad. */
#ifndef OUTRIDER_HOST_H
#define OUTRIDER_HOST_H

#include "../core.h"
#include "line.h"

#include <stdio.h>

#define HOST_TX_BYTES 4096u
#define HOST_SLOT_BYTES (64u * HAL_PAGE_BYTES)

struct host_plant {
    double speed_radps[2];
    double angle_rad[2];
    double current_a[2];
    float acceleration_mps2[3];
    float turn_rate_radps[3];
    float battery_a;
    float charge;
    double stepped_s;
    double silent_since_s; /* an outside plant's last word */
    double silent_max_s;
    int socket;            /* an outside plant's; -1: none */
    bool outside_motors;   /* it closes the speed loop itself: the motors here stand still */
};

/* What a test makes the inputs say. */
struct host_forced {
    bool emergency_stop;
    unsigned bumpers;
    float battery_v;
    float current_a[2]; /* added to what the motors take */
    float push_radps[2]; /* added to what the wheels are seen to do: somebody pushes the robot */
    bool silent;
};

struct host {
    bool virtual_time;
    double rate; /* of the board's clock against this machine's */
    uint64_t now_us;
    uint32_t boots;
    uint8_t tx[HOST_TX_BYTES];
    size_t tx_size;
    uint32_t frames_out;
    struct host_plant plant;
    struct host_forced forced;
    float effort[2];
    bool enabled;
    float wanted_radps[2];
    uint8_t *flash; /* all areas, one behind the other */
    int flash_file; /* -1: memory only */
    uint64_t flash_written; /* bytes erased and written */
    uint64_t cut_after;     /* power fails at this one; UINT64_MAX: never */
    bool powerless;
    bool cut_ends_process;
    bool restart_wanted;
    uint8_t key[SIGNATURE_KEY_BYTES]; /* what the firmware brings as shipped */
    bool key_there;
    char name[17];
    struct line to_board;
    struct line to_host;
};

extern struct host host;

void host_init(void);
bool host_flash_open(const char *path); /* false: errno says why */
void host_flash_blank(void);
void host_plant_step(double now_s);
bool host_plant_open(const char *path);
void host_plant_exchange(double now_s); /* with an outside plant */
bool host_signature_built(void);
void host_sign(const uint8_t *message, size_t size, uint8_t signature[SIGNATURE_BYTES]); /* for proofs: host.key is its */
bool host_read_key(const char *text); /* hexadecimal */
bool host_command(char *text); /* one line of control: see `outrider firmware emulate --help` */

int host_emulate(int count, char **arguments);
int host_replay(int count, char **arguments);
int host_codec(void);
int host_fuzz(int count, char **arguments);
int host_cut(int count, char **arguments);

#endif
