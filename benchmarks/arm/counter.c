/* A QEMU plugin (user mode, aarch64): how many instructions the guest executes between two markers.
 *
 * The guest marks with prctl(BEGIN) and prctl(END), which a real kernel would refuse without harm. At each END one line
 * of JSON goes to QEMU's log (-d plugin -D FILE). Every thread of the guest is counted.
 *
 * QEMU translates code block by block, and a block runs from its beginning to its end. So it is enough to add, each
 * time a block runs, how many instructions of each class it holds: exact, and cheap.
 */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PRCTL = 167, BEGIN = 0x45444731, END = 0x45444730 };

/* Encodings: Arm Architecture Reference Manual (DDI 0487), C4.1, "Data Processing -- Scalar Floating-Point and
 * Advanced SIMD". An instruction is of a class when (word & mask) == value for any of the class's lines. */
static const struct { int class; uint32_t mask, value; } encodings[] = {
    {1, 0x9fe0fc00, 0x0e809400}, /* SDOT, UDOT */
    {1, 0xbfe0fc00, 0x0e809c00}, /* USDOT */
    {1, 0x9fc0f400, 0x0f80e000}, /* SDOT, UDOT by element */
    {1, 0xbf40f400, 0x0f00f000}, /* USDOT, SUDOT by element */
    {2, 0xdfe0f400, 0x4e80a400}, /* SMMLA, UMMLA, USMMLA */
    {3, 0x9f20fc00, 0x0e208000}, /* SMLAL, UMLAL and their second halves */
    {3, 0x9f20fc00, 0x0e20c000}, /* SMULL, UMULL */
    {3, 0x9f00f400, 0x0f002000}, /* SMLAL, UMLAL by element */
    {3, 0x9f00f400, 0x0f00a000}, /* SMULL, UMULL by element */
    {4, 0xbf20fc00, 0x0e20cc00}, /* FMLA, FMLS */
    {4, 0xbf60fc00, 0x0e400c00}, /* FMLA, FMLS in half precision */
    {4, 0xbf00b400, 0x0f001000}, /* FMLA, FMLS by element */
};
enum { CLASSES = 5, ENCODINGS = sizeof encodings / sizeof *encodings };
static const char *const names[CLASSES] = {"instructions", "sdot", "smmla", "smlal", "fmla"};
static uint64_t counts[CLASSES], before[CLASSES];

/* Debian packages no qemu-plugin.h: this is what we need of it, plugin API version 1 (QEMU 4.2 to 8.2). */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;
typedef uint64_t qemu_plugin_id_t;
typedef void translated_t(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void syscall_t(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t);
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_t *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_t *);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *);
int qemu_plugin_version = 1;

static void on_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    uint64_t held[CLASSES] = {qemu_plugin_tb_n_insns(block)};
    for (size_t i = 0; i < held[0]; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        for (int e = 0; e < ENCODINGS; e++)
            if ((word & encodings[e].mask) == encodings[e].value) held[encodings[e].class]++;
    }
    for (int c = 0; c < CLASSES; c++)
        if (held[c]) qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &counts[c], held[c]);
    (void)id;
}

static void on_syscall(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    if (number == PRCTL && a1 == BEGIN) memcpy(before, counts, sizeof counts);
    if (number == PRCTL && a1 == END) {
        char line[256] = "{";
        for (int c = 0; c < CLASSES; c++)
            snprintf(line + strlen(line), sizeof line - strlen(line), "%s\"%s\": %" PRIu64, c ? ", " : "", names[c],
                     counts[c] - before[c]);
        qemu_plugin_outs(strcat(line, "}\n"));
    }
    (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    (void)info, (void)argc, (void)argv;
    return 0;
}
