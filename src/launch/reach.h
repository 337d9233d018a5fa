// How a host is reached: which are this one, the command that starts an agent on another, and the addresses that others reach us at.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "poseidon/error.h"

namespace poseidon::launch {

struct ReachOptions {
  std::vector<std::string> ssh = {"ssh"};  // the program, and flags of the user's
  std::string user;                        // empty: as ssh's configuration says
  std::string key;                         // file of the private key; likewise
  std::string program;                     // poseidon, on the other host
  std::string virtualenv;                  // a folder there, whose bin/activate comes first; may be empty
};

// The command that starts an agent on a host, through ssh: never asks for a password, and gives up when nobody answers.
std::vector<std::string> agent_command(const std::string& host, const ReachOptions& options);

// One word for a POSIX shell.
std::string shell_quoted(std::string_view word);

// Whether the name is this machine's own: localhost, what it calls itself, or one of its addresses.
bool is_this_host(const std::string& name);

// A set of addresses, as 10.0.0.0/8 or fd00::/8 writes it, or one address. Text that is neither is kInvalid.
class Network {
 public:
  static Result<Network> parse(const std::string& text);
  bool contains(const std::string& address) const;

 private:
  std::vector<unsigned char> bytes_;
  unsigned bits_ = 0;
};

struct OwnAddress {
  std::string interface;
  std::string address;
};

// Those of this machine's IPv4 addresses at which other hosts may reach it, in the order in which the system lists them, without the loopback.
std::vector<OwnAddress> own_addresses();

}  // namespace poseidon::launch
