// The cluster description of the published TensorFlow edition, which `psd_run -c` took: JSON with the addresses of workers and servers.
//
//   {"username": "ubuntu", "pem_file": "key.pem", "virtualenv": "/home/ubuntu/sandbox", "master_node": "10.0.0.1",
//    "worker_nodes": ["10.0.0.1", "10.0.0.2"], "server_nodes": ["10.0.0.1", "10.0.0.2"]}
//
// Only worker_nodes must be there. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "launch/hosts.h"
#include "poseidon/error.h"

namespace poseidon::launch {

struct ClusterFile {
  Placement workers;       // at least one; a node that is named twice has two
  Placement servers;       // may be empty: workers serve each other
  std::string master;      // of the coordinator; may be empty
  std::string username;    // for ssh; may be empty
  std::string pem_file;    // the private key for ssh; may be empty
  std::string virtualenv;  // a folder on every node, whose bin/activate workers begin with; may be empty
};

// kInvalid, beginning with the file's `name`, where the text is something else.
Result<ClusterFile> parse_cluster_file(std::string_view text, const std::string& name);

}  // namespace poseidon::launch
