// The precompiled header of the tests that use torch.
#pragma once

#include "engines/torch/torch_headers.h"
#include "test_headers.h"
