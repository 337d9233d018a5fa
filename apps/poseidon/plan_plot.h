// `poseidon plan --plot`: speed-up over nodes, one line for each bandwidth, and the ideal one.
//
// The picture is drawn by poseidon-images, since OpenCV is in no process with torch
// (docs/decisions/0018-a-thousand-nodes.md).
#pragma once

#include <string>
#include <vector>

#include "apps/poseidon/plan_rows.h"

namespace poseidon::app {

// 1, 2, 4, ... and `most`: what a plot shows where one number of nodes and one bandwidth was asked for.
std::vector<int> doubling_nodes(int most);

// Writes a PNG. kSystem or kInvalid where poseidon-images cannot be run or cannot write; it has said why on standard error then.
Status plot_rows(const std::vector<PlanRow>& rows, const replay::Workload& workload, const std::string& path);

}  // namespace poseidon::app
