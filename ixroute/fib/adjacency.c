#include "fib/adjacency.h"
