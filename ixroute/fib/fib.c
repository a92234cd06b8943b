#include "fib/fib.h"
