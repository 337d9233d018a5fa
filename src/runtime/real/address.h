// Which of this host's addresses others can reach it at.
#pragma once

#include <string>

#include "poseidon/error.h"
#include "runtime/transport.h"

namespace poseidon::runtime::real {

// The address that this host uses towards `endpoint`, as text: the one to listen on, and to tell to whoever is there. Sends
// nothing. kNotFound where the host's name has no address, or no route leads to it.
Result<std::string> local_address_towards(const Endpoint& endpoint);

}  // namespace poseidon::runtime::real
