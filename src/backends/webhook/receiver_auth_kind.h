#pragma once

#include "config/option_table.h"

namespace relay::webhook {

/// How a client shows that it may write: the option `auth`.
enum class AuthKind { none, bearer, basic, header, hmac, github, stripe, slack };
inline constexpr config::Choice<AuthKind> kAuthKinds[] = {
    {"none", AuthKind::none},     {"bearer", AuthKind::bearer}, {"basic", AuthKind::basic},
    {"header", AuthKind::header}, {"hmac", AuthKind::hmac},     {"github", AuthKind::github},
    {"stripe", AuthKind::stripe}, {"slack", AuthKind::slack}};

}  // namespace relay::webhook
