/* Written by benchmarks/gelu_fit.py. */
#pragma once

#define GELU_CLAMP 5.0f
#define GELU_TERMS 13
static const float GELU_COEFFICIENTS[GELU_TERMS] = {
    1.413638615e-01f, -7.029669268e-02f, 5.152145041e-02f, -4.043297264e-02f, 3.142624745e-02f,
    -2.333674463e-02f, 1.649766640e-02f, -1.097323716e-02f, 6.165432373e-03f, -2.915675934e-03f,
    2.001863333e-03f, -1.514154125e-03f, 4.929689777e-04f,
};
