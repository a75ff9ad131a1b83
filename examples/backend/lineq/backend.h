#pragma once

namespace relay {
class Registry;
}

namespace relay::lineq {

/// Adds the source and the sink `lineq`.
void register_backend(Registry& registry);

}  // namespace relay::lineq
