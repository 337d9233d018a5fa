// What workers of the test jobs do. A scenario returns what went wrong; nothing where all was well.
#pragma once

#include "worker_fixture.h"

namespace capi_test {

Wrong sums();
Wrong factors(bool own);
Wrong slow_factors();
Wrong mistakes();
Wrong factor_mistakes();
Wrong gathering();
Wrong giving_up();
Wrong closing_in_a_product();
Wrong refused_in_a_worker();
Wrong renewal();
Wrong renewal_mistakes();
Wrong renewed_unlike();
Wrong tensors_for_themselves();
Wrong letters();
Wrong letters_of_other_sizes();
Wrong spans();
Wrong forsaking();

}  // namespace capi_test
