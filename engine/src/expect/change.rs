//! Whether a number is like those of earlier runs: the modified z-score of Iglewicz and Hoaglin, "How to Detect and Handle Outliers"
//! (ASQC, 1993), which one or two runs that went astray do not move.

/// Two numbers nearer than this, relative to the larger, are one: the tolerance of `math.isclose` (PEP 485). A sum of floats differs by
/// as much with the order of its rows.
const TOLERANCE: f64 = 1e-9;
/// The third quartile of the standard normal distribution: the median absolute deviation of normal values is so many deviations.
const MAD_SHARE: f64 = 0.6745;
/// The square root of π/2: the standard deviation of normal values is so many mean absolute deviations.
const MEAN_AD_FACTOR: f64 = 1.253_314;

/// How many deviations `value` lies from the median of `earlier`, which is not empty and, like `value`, finite: 0.6745 (x - median) / MAD;
/// where more than half of the earlier values are equal, so that the median absolute deviation is 0, (x - median) / (1.253314 mean AD);
/// where all are equal, infinitely many. 0 where `value` and the median are one number.
pub fn z_score(value: f64, earlier: &[f64]) -> f64 {
    let middle = median(earlier);
    let deviation = value - middle;
    if deviation.abs() <= TOLERANCE * value.abs().max(middle.abs()) {
        return 0.0;
    }
    let deviations: Vec<f64> = earlier.iter().map(|earlier| (earlier - middle).abs()).collect();
    let mad = median(&deviations);
    if mad > 0.0 {
        return MAD_SHARE * deviation / mad;
    }
    let mean = mean(&deviations);
    if mean > 0.0 { deviation / (MEAN_AD_FACTOR * mean) } else { deviation.signum() * f64::INFINITY }
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { sorted[middle - 1] / 2.0 + sorted[middle] / 2.0 }
}

#[expect(clippy::cast_precision_loss, reason = "a thousand values at most")]
fn mean(values: &[f64]) -> f64 {
    values.iter().map(|value| value / values.len() as f64).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    }

    #[test]
    fn the_score_is_that_of_the_book() {
        // Median 5, deviations 3 2 1 0 1 2 3, their median 2.
        near(z_score(5.0, &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), 0.0);
        near(z_score(9.0, &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), 0.6745 * 4.0 / 2.0);
        near(z_score(-5.0, &[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]), 0.6745 * -10.0 / 2.0);
        // An even number: median 2.5, deviations 1.5 0.5 0.5 97.5, their median 1.
        near(z_score(4.5, &[1.0, 2.0, 3.0, 100.0]), 0.6745 * 2.0);
    }

    #[test]
    fn where_most_are_equal_the_mean_deviation_counts() {
        // Median 10, deviations 0 0 0 0 5, their mean 1.
        near(z_score(20.0, &[10.0, 10.0, 10.0, 10.0, 15.0]), 10.0 / 1.253_314);
    }

    #[test]
    fn where_all_are_equal_any_difference_is_without_bound() {
        assert_eq!(z_score(51.0, &[50.0; 5]), f64::INFINITY);
        assert_eq!(z_score(49.0, &[50.0; 5]), f64::NEG_INFINITY);
        assert_eq!(z_score(50.0, &[50.0; 5]), 0.0);
        assert_eq!(z_score(1e-300, &[0.0; 5]), f64::INFINITY);
    }

    #[test]
    fn the_last_digits_of_a_sum_are_no_difference() {
        assert_eq!(z_score(0.1 + 0.2, &[0.3; 5]), 0.0);
        let sums = [0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 0.1 + 0.2];
        assert_eq!(z_score(0.3 - 1e-17, &sums), 0.0);
    }

    proptest! {
        #[test]
        fn scale_and_place_change_nothing(
            values in prop::collection::vec(-1000i32..1000, 3..30), value in -2000i32..2000, factor in 1i32..50, shift in -1000i32..1000,
        ) {
            let floats = |values: &[i32]| values.iter().copied().map(f64::from).collect::<Vec<f64>>();
            let moved: Vec<i32> = values.iter().map(|value| value * factor + shift).collect();
            let (z, moved) = (z_score(f64::from(value), &floats(&values)), z_score(f64::from(value * factor + shift), &floats(&moved)));
            prop_assert!(z == moved || (z - moved).abs() < 1e-6 * z.abs(), "{z} and {moved}");
        }

        #[test]
        fn the_order_of_runs_is_nothing_and_the_sign_is_the_direction(
            mut values in prop::collection::vec(-1e6f64..1e6, 3..30), value in -1e7f64..1e7,
        ) {
            let z = z_score(value, &values);
            prop_assert!(z == 0.0 || (z > 0.0) == (value > median(&values)));
            values.reverse();
            prop_assert_eq!(z, z_score(value, &values));
        }

        #[test]
        fn two_wild_runs_of_nine_move_nothing(wild in prop::array::uniform2(-1e12f64..1e12), value in 90f64..110.0) {
            let mut values = vec![97.0, 98.0, 99.0, 100.0, 101.0, 102.0, 103.0];
            values.extend(wild);
            prop_assert!(z_score(value, &values).abs() < 0.6745 * 13.0);
        }

        #[test]
        fn no_number_of_a_usual_size_gives_nan(
            values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO, 1..30), value in prop::num::f64::NORMAL,
        ) {
            let z = z_score(value, &values);
            prop_assert!(!z.is_nan() || values.iter().chain([&value]).any(|value| value.abs() > 1e300), "{z}");
        }
    }
}
