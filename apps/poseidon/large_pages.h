// Pages of 2 MiB for a program whose memory is read all over the place.
//
// A thousand simulated nodes are more than a gigabyte of small things, and an event touches a dozen of them, none of which was
// touched lately: with pages of 4 KiB the address of each has to be looked up in tables that are in no cache either. Large pages take
// a tenth to a quarter of the time away.
#pragma once

namespace poseidon::app {

// For what malloc gives from now on, up to 2 GiB. Call it before much has been allocated. Where the kernel gives no large pages all
// stays as it was.
void use_large_pages();

}  // namespace poseidon::app
