// What libposeidon.so shows to programs that link with it; everything else in it is hidden.
//
// Plain C, since the C header includes it too. The list of what is shown is checked by tests/capi/abi.txt.
#ifndef POSEIDON_EXPORT_H_
#define POSEIDON_EXPORT_H_

#define POSEIDON_API __attribute__((visibility("default")))

#endif
