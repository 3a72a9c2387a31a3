/* Answers cpuid for programs whose cpuid instructions were replaced by one that is invalid in 64-bit mode (06, `push es`,
   and the second byte of cpuid): without AVX-512, VNNI and AMX. Whatever else is invalid stays so. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>

static struct sigaction before;

static void on_ill(int number, siginfo_t *info, void *context) {
  greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *at = (const unsigned char *)r[REG_RIP];
  if (at[0] != 0x06 || at[1] != 0xa2) {
    sigaction(SIGILL, &before, 0);
    return;
  }
  unsigned leaf = (unsigned)r[REG_RAX], sub = (unsigned)r[REG_RCX], a, b, c, d;
  __cpuid_count(leaf, sub, a, b, c, d);
  if (leaf == 7 && sub == 0) {
    b &= ~(1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31);
    c &= ~(1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14);
    d &= ~(1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25);
  } else if (leaf == 7 && sub == 1) {
    a &= ~(1u << 4 | 1u << 5 | 1u << 21 | 1u << 23);
    d &= ~(1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19);
  }
  r[REG_RAX] = a; r[REG_RBX] = b; r[REG_RCX] = c; r[REG_RDX] = d;
  r[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction own;
  memset(&own, 0, sizeof own);
  own.sa_sigaction = on_ill;
  own.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGILL, &own, &before);
}
