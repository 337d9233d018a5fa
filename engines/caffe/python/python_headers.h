// The precompiled header of the module. Files still include what they use.
#pragma once

#include <pybind11/functional.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "engines/torch/torch_headers.h"
