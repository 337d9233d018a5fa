// Where the workers of a job start: one host for each rank.
//
// People have lists of hosts in many styles, left over from other launchers; what they mean is found out by looking at them. Pure
// functions, of text that may come from anywhere.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::launch {

constexpr std::size_t kWorkersMax = 4096;

// By rank: the host that it starts on, as ssh takes it (a name or an address, perhaps with user@ before it). Ranks of one host follow
// each other, except where a list numbers them itself.
using Placement = std::vector<std::string>;

// "a:2,b" as -H has it: two workers on a, one on b. A host that is named twice has the slots of both. kInvalid, naming the entry.
Result<Placement> parse_host_list(std::string_view text);

// A hostfile. Empty lines, and everything after a #, are for people. A line is one of
//   host slots=4       Open MPI's; slots may be left out, max_slots=N is let pass
//   host:4             MPICH's
//   host               one worker; as often as the host is named
//   id address port    the parameter server's of old: ids 0, 1, ... in any order are the ranks; ports are looked at and not used,
//                      since free ones are chosen
// The first three may be mixed, the last may not. An IPv6 address with a number of slots is written in brackets: [fe80::1]:4.
// kInvalid, beginning with NAME:LINE; `name` is the file's.
Result<Placement> parse_hostfile(std::string_view text, const std::string& name);

// Whether ssh could take it for a host: letters, digits, and . _ - : % as addresses have them; not a flag.
bool is_host(std::string_view text);

}  // namespace poseidon::launch
