// How a process finds its job, and the first step into it: an address to be called at.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "cluster/messages.h"
#include "poseidon/error.h"
#include "poseidon/types.h"
#include "runtime/real/lane.h"
#include "runtime/real/tcp_transport.h"
#include "store/gate.h"

namespace poseidon::cluster {

// What launchers put into the environment:
//   POSEIDON_WORLD_SIZE    the number of workers
//   POSEIDON_SERVERS       the number of dedicated servers; may be left out where there are none
//   POSEIDON_ROLE          worker, or server; left out: worker
//   POSEIDON_RANK          this process's number among those of its role, from 0
//   POSEIDON_COORDINATOR   host:port
//   POSEIDON_SECRET_FILE
//   POSEIDON_LANES         event loops of each member, the same number for all; left out: 1
//   POSEIDON_STAGING       what each member may stage, "512MiB"; left out: 1 GB
//   POSEIDON_TLS           1 where all links of the job are TLS; left out, or 0: they are not
struct JobAddress {
  Rank rank{0};       // a worker's, or workers + its number for a dedicated server
  int workers = 1;
  runtime::Endpoint coordinator;
  std::vector<std::byte> secret;
  bool tls = false;
  int servers = 0;         // dedicated ones
  // Of a dedicated server, and of a worker through the library; one of `poseidon train` has flags.
  std::size_t lanes = 1;
  std::size_t staging_bytes_max = store::kStagingBytesMax;

  bool is_server() const { return index(rank) >= workers; }
};
// Nothing when POSEIDON_RANK is not set: no job. kInvalid, naming the variable, when the contract is broken.
Result<std::optional<JobAddress>> job_from_environment();

// A process that listens where the job's other members can call it, and admits them.
struct JobLink {
  runtime::real::TcpOptions tcp;  // for further lanes, as for the first
  std::unique_ptr<runtime::real::TcpTransport> transport;
  MemberInfo self;
};
Result<JobLink> open_job_link(runtime::real::RealLane& lane, const JobAddress& job);

}  // namespace poseidon::cluster
